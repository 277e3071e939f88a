"""Names for kinds of number; build.check reads them from annotations, so mistakes cost no import of torch."""

from pathlib import Path

Count = int  # 1, 2, ...
Whole = int  # 0, 1, ...
Fraction = float  # 0 <= x <= 1
Share = float  # 0 < x < 1
Positive = float  # x > 0
NonNegative = float  # x >= 0
FolderPath = str  # of a folder that is there
ExistingPath = str  # of a file or folder that is there

RULES = {
    "Count": ("a whole number of 1 or more", int, lambda x: x >= 1),
    "Whole": ("a whole number of 0 or more", int, lambda x: x >= 0),
    "Fraction": ("a number from 0 to 1", float, lambda x: 0 <= x <= 1),
    "Share": ("a number above 0 and below 1", float, lambda x: 0 < x < 1),
    "Positive": ("a number above 0", float, lambda x: x > 0),
    "NonNegative": ("a number of 0 or more", float, lambda x: x >= 0),
    "FolderPath": ("a folder that exists", str, lambda x: Path(x).expanduser().is_dir()),
    "ExistingPath": ("a file or folder that exists", str, lambda x: Path(x).expanduser().exists()),
    "int": ("a whole number", int, None),
    "float": ("a number", float, None),
    "bool": ("true or false", bool, None),
    "str": ("a word", str, None),
}
