"""Sums of squared, or absolute, per-example gradients without a pass per example.

For a Linear layer the gradient of example n is g_n a_n^T, so its square summed over n is
(G*G)^T (A*A): one product of matrices, as |G|^T |A| for absolute values. Convolutions and token-wise
layers sum over places first, norm layers have one product per channel, tokens and positions of a ViT take a
row per example. Parameters of other modules, of modules called twice in one forward pass or not at all, and
parameters that modules share take torch.func's vmap(grad); the numbers are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Choose = Callable[[Tensor], list[tuple[Tensor, Tensor]]]  # log p [B, C] -> (class [B], weight [B]) pairs; text: [B, L, C] -> [B, L], [B]
Size = Callable[..., Tensor]  # torch.square or torch.abs
TILE_BYTES = {"cpu": 1 << 22}  # per-example matrices are made a tile at a time, here small enough for the cache
TILE_BYTES_ELSEWHERE = 1 << 26
TILE_EXAMPLES = 8


class SquaredGradients:
    """Call with images [B, ...]; returns sum_n sum_(c, w) w_n (d log p(c_n|x_n)/d theta)^2, flat [P]."""

    size = staticmethod(torch.square)  # of a product it is the product of sizes

    def __init__(self, network: nn.Module, parameters: Sequence[Tensor]):
        self.network, self.parameters = network, parameters
        owned = [id(p) for m in network.modules() for p in m.parameters(recurse=False)]
        shared = {i for i, count in Counter(owned).items() if count > 1}  # the square of a sum is no sum of squares
        wanted = {id(p) for p in parameters}
        own = {m: {id(p) for p in m.parameters(recurse=False)} for m in network.modules() if _reads(m)}
        self.layers = [m for m, ids in own.items() if ids & wanted and not ids & shared]
        self.rows = {n: p for n, p in _broadcast(network) if id(p) in wanted - shared}

    def __call__(self, images: Tensor, log_p: Callable[[Tensor], Tensor], choose: Choose) -> Tensor:
        calls, rows, scores = self._record(images, log_p)
        twice = {id(m) for i, (m, _, _) in enumerate(calls) if any(m is other for other, _, _ in calls[:i])}
        if twice:
            self.layers = [m for m in self.layers if id(m) not in twice]
            return self(images, log_p, choose)
        total = {id(p): torch.zeros_like(p) for p in self.parameters}
        outputs = [*(output for _, _, output in calls), *rows.values()]
        targets = choose(scores)
        flat: dict[int, Tensor] = {}  # sums of G*G over the classes: a 2-D Linear layer's A*A waits for them all
        for classes, weight in targets if outputs else []:
            goal = (weight.sqrt() * scores.gather(-1, classes[..., None]).flatten(1).sum(1)).sum()
            gradients = torch.autograd.grad(goal, outputs, retain_graph=True)
            _add(total, [(self.rows[n], self.size(g).sum(0, keepdim=True)) for n, g in zip(rows, gradients[len(calls) :], strict=True)])
            for i, g in enumerate(gradients[: len(calls)]):
                module, given, _ = calls[i]
                if type(module) is nn.Linear and g.dim() == 2:
                    flat[i] = flat[i].add_(self.size(g)) if i in flat else self.size(g)
                else:
                    _add(total, _sizes(module, given, g, self.size))
        for i, square in flat.items():
            module, given, _ = calls[i]
            _add(total, [(module.weight, square.t() @ self.size(given)), (module.bias, square.sum(0))])
        covered = {id(p) for m, _, _ in calls for p in m.parameters(recurse=False)} | {id(p) for p in self.rows.values()}
        self._add_rest(covered, total, images, log_p, targets)
        return torch.cat([total[id(p)].reshape(-1) for p in self.parameters])

    def _record(
        self, images: Tensor, log_p: Callable[[Tensor], Tensor]
    ) -> tuple[list[tuple[nn.Module, Tensor, Tensor]], dict[str, Tensor], Tensor]:
        """(layer, its input, its output) of each call; the parameters that have a row per example; log p."""
        calls: list[tuple[nn.Module, Tensor, Tensor]] = []

        def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls.append((module, given[0].detach(), output))
            return output.clone()  # an activation in place must not touch the output that is differentiated

        hooks = [module.register_forward_hook(note) for module in self.layers]
        rows = {n: p.detach().expand(len(images), *p.shape[1:]).requires_grad_() for n, p in self.rows.items()}
        try:
            return calls, rows, log_p(functional_call(self.network, rows, (images,)))
        finally:
            for hook in hooks:
                hook.remove()

    def _add_rest(
        self,
        covered: set[int],
        total: dict[int, Tensor],
        images: Tensor,
        log_p: Callable[[Tensor], Tensor],
        targets: list[tuple[Tensor, Tensor]],
    ) -> None:
        rest = {n: p for n, p in self.network.named_parameters() if id(p) in total and id(p) not in covered}
        if not rest:
            return
        fixed = {n: p.detach() for n, p in self.network.named_parameters() if n not in rest}

        def score(moving: dict[str, Tensor], image: Tensor, c: Tensor) -> Tensor:
            return log_p(functional_call(self.network, {**fixed, **moving}, (image[None],)))[0].gather(-1, c[..., None]).sum()

        per_example = vmap(grad(score), in_dims=(None, 0, 0), chunk_size=64, randomness="same")
        for classes, weight in targets:
            found = per_example({n: p.detach() for n, p in rest.items()}, images, classes)
            for name, parameter in rest.items():
                total[id(parameter)] += torch.einsum("n,n...->...", weight, self.size(found[name]))


class AbsoluteGradients(SquaredGradients):
    """The same with |d score(c_n|x_n) / d theta| for the square; weights w_n are 1."""

    size = staticmethod(torch.abs)


def _reads(module: nn.Module) -> bool:
    """Exact types: a subclass may do more (timm's BatchNormAct2d); timm's LayerNorm only picks another kernel."""
    kind = type(module)
    if kind in (nn.Linear, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d) or (kind.__module__, kind.__name__) == (
        "timm.layers.norm",
        "LayerNorm",
    ):
        return True
    return (
        kind is nn.Conv2d
        and isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _broadcast(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters [1, ...] that a model only repeats over the examples of a batch, so that each may have its own."""
    for path, module in network.named_modules():
        if (type(module).__module__, type(module).__name__) == ("timm.models.vision_transformer", "VisionTransformer"):
            for name, parameter in module.named_parameters(recurse=False):
                if name in ("cls_token", "reg_token", "pos_embed"):
                    yield f"{path}.{name}" if path else name, parameter


def _add(total: dict[int, Tensor], found: list[tuple[Any, Tensor]]) -> None:
    for parameter, square in found:
        if id(parameter) in total:
            total[id(parameter)] += square


def _sizes(module: Any, given: Tensor, g: Tensor, size: Size) -> list[tuple[Tensor | None, Tensor]]:
    """(parameter, sizes of gradients summed over examples) from a layer's input and output gradient."""
    weight, bias = module.weight, module.bias
    if isinstance(module, nn.Conv2d):
        sizes: Any = (module.kernel_size, module.dilation, module.padding, module.stride)
        given = F.unfold(given, *sizes).transpose(1, 2)
        g = g.flatten(2).transpose(1, 2)  # [B, places, out]
    if isinstance(module, nn.Linear | nn.Conv2d):
        given, g = given.flatten(1, -2), g.flatten(1, -2)
        return [(weight, _by_tiles(given, g, size).view_as(weight)), (bias, size(g.sum(1)).sum(0))]
    if isinstance(module, nn.LayerNorm):
        plain = F.layer_norm(given, module.normalized_shape, None, None, module.eps)
        places = tuple(range(1, g.dim() - len(module.normalized_shape)))
    else:
        plain = F.batch_norm(given, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
        places = tuple(range(2, g.dim()))
    by_example = [(weight, g * plain), (bias, g)]
    return [(p, size(x.sum(places) if places else x).sum(0)) for p, x in by_example]


def _by_tiles(given: Tensor, g: Tensor, size: Size) -> Tensor:
    """sum_n size(sum_p g_np a_np^T) [out, in] of given a [N, P, in] and g [N, P, out], never all matrices at once."""
    width, outputs = given.shape[2], g.shape[2]
    room = TILE_BYTES.get(given.device.type, TILE_BYTES_ELSEWHERE) // (width * given.element_size())  # rows of a tile
    examples = max(TILE_EXAMPLES, room // outputs)
    rows = max(1, room // examples)
    square = given.new_zeros(outputs, width)
    for a, b in zip(given.split(examples), g.split(examples), strict=True):
        for total, part in zip(square.split(rows), b.split(rows, 2), strict=True):
            product = torch.bmm(part.transpose(1, 2), a)
            total += size(product, out=product).sum(0)
    return square
