"""Of each method, the same arithmetic as plain PyTorch: its bare network, over a copy of our weights, and what it adds to a step."""

from __future__ import annotations

from typing import Any

import bare_methods
import bare_prompts
from bare import Plain
from torch import nn

from cl_bench.core.learner import Network
from cl_bench.data.views import View
from cl_bench.strategies.agem import AGEM
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.der import DER
from cl_bench.strategies.derpp import DERpp
from cl_bench.strategies.er_ace import ERACE
from cl_bench.strategies.ewc import EWC
from cl_bench.strategies.icarl import ICaRL
from cl_bench.strategies.l2p import L2P
from cl_bench.strategies.lwf import LwF
from cl_bench.strategies.mas import MAS
from cl_bench.strategies.memory import LOTS
from cl_bench.strategies.packnet import PackNet
from cl_bench.strategies.pnn import PNN, Tap
from cl_bench.strategies.rehearsal import Rehearsal
from cl_bench.strategies.si import SI


def twin(strategy: Strategy, network: Network, view: View, classes: int, old: int) -> tuple[nn.Module, Plain]:
    """The bare network and method of strategy, over the weights of network, a copy of ours; old: of the classes, those seen before."""
    parameters, m = list(network.parameters()), bare_methods
    if isinstance(strategy, EWC | MAS | SI):
        held = [[t.clone() for t in tensors] for tensors in (strategy.penalty.weights, strategy.penalty.centres)]
        return network, (m.SI if isinstance(strategy, SI) else m.Penalty)(parameters, *held)
    if isinstance(strategy, LwF):
        return network, m.LwF(strategy.teacher.network, old, strategy.temperature)
    if isinstance(strategy, ICaRL):
        network.head, count = _linear(network.head), strategy.num_kept
        memory = m.Memory({"x": view(strategy.raw[:count], None), "y": strategy.y[:count].clone()}, 0)
        return network, m.ICaRL(strategy.teacher.network, memory, classes, old)
    if isinstance(strategy, PNN):
        return _column(strategy, network), m.Own(strategy.own[1])
    if isinstance(strategy, L2P):
        prompted: Any = network.backbone
        return bare_prompts.Prompted(prompted.vit, prompted.pool, network.head, strategy.top), bare_prompts.L2P(
            strategy.own[1], strategy.pull
        )
    if isinstance(strategy, PackNet):
        plain = nn.Sequential(network.backbone.backbone, network.head.head)
        return plain, m.PackNet(strategy.own[1], parameters, strategy.opens, strategy.kepts)
    if isinstance(strategy, Rehearsal):
        memory = _memory(strategy, view)
        if isinstance(strategy, DER):
            return network, m.DER(memory, strategy.alpha, strategy.beta if isinstance(strategy, DERpp) else 0.0)
        if isinstance(strategy, ERACE):
            return network, m.ERACE(memory, strategy.seen.clone())
        return network, m.AGEM(memory, parameters) if isinstance(strategy, AGEM) else m.ER(memory)
    return network, Plain()


def _memory(strategy: Rehearsal, view: View) -> bare_methods.Memory:
    found = {name: column[: strategy.memory_size].clone() for name, column in strategy.memory.columns.items()}
    columns = {"x": view(found["raw"], None), "y": found["y"]}
    if strategy.keeps_outputs:
        columns["outputs"] = found["outputs"]
    if strategy.kind == "balanced":
        return bare_methods.Balanced(columns, found["key"] % LOTS / LOTS)
    return bare_methods.Memory(columns, strategy.memory.num_seen)


def _linear(head: nn.Module) -> nn.Linear:
    plain = nn.Linear(*reversed(head.weight.shape))
    plain.weight, plain.bias = head.weight, head.bias
    return plain


def _column(strategy: PNN, network: Network) -> bare_methods.Column:
    old, body = network.backbone.bodies
    taps = {}
    for name, tap in [(name, module) for name, module in body.named_modules() if isinstance(module, Tap)]:
        old.set_submodule(name, old.get_submodule(name).layer)
        body.set_submodule(name, tap.layer)
        taps[name] = tap.adapter
    return bare_methods.Column(old, body, network.head.heads[1], taps, network.head.adapters[0])
