"""Packages as they lie in a site-packages folder: sound ones, broken ones, and such with damaged metadata."""

from __future__ import annotations

from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

NORM = '''
from torch import Tensor, nn

class Norm(nn.Module):
    """Does nothing, politely."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
'''


def put(
    site: Path,
    name: str,
    entry_points: str | bytes,
    source: str | None = None,
    *,
    version: str = "1.0",
    metadata: str | None = METADATA,
) -> Path:
    """A package in `site`, with its module if there is a source; its metadata folder."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    raw = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
    (folder / "entry_points.txt").write_bytes(raw)
    if metadata is not None:
        (folder / "METADATA").write_text(metadata.format(name=name.replace("_", "-"), version=version))
    if source is not None:
        (site / f"{name}.py").write_text(source)
    return folder


def norm(name: str, target: str) -> str:
    """An entry_points.txt with one norm."""
    return f"[i2ikit.norms]\n{name} = {target}\n"


DAMAGED: dict[str, tuple[bytes, str]] = {
    "no_header": (b"x = no_header:Norm\n", "line 1 ('x = no_header:Norm') comes before the first [group]"),
    "twice_a_name": (b"[i2ikit.norms]\nx = a:B\nx = a:C\n", "line 3: [i2ikit.norms] defines 'x' twice"),
    "twice_a_group": (
        b"[i2ikit.norms]\nx = a:B\n[i2ikit.norms]\ny = a:C\n",
        "line 3: the group [i2ikit.norms] appears twice",
    ),
    "no_equals": (b"[console_scripts]\njust words\n", "line 2 ('just words') is not `name = module:object`"),
    "marked": (b"\xef\xbb\xbf[i2ikit.norms]\nmarked-x = marked:Norm\n", "starts with a byte-order mark"),
    "latin": (b"[i2ikit.norms]\ncaf\xe9 = latin:Norm\n", "byte 18 (0xe9) is not UTF-8"),
    "percent": (
        b"[i2ikit.norms]\npercent-x = percent:%d\n",
        "percent-x = percent:%d: expected module:object",
    ),
    "spaced": (
        b"[i2ikit.norms]\nspaced-x = spaced : Norm\n",
        "spaced-x = spaced : Norm: remove the space around the colon",
    ),
    "defaulting": (
        b"[DEFAULT]\nin = defaulting:Norm\n[i2ikit.norms]\ndefault-x = defaulting:Norm\n",
        "has a section [DEFAULT], which is not a group",
    ),
    "~alf_gone": (b"[i2ikit.norms]\nhalf-x = half_gone:Norm\n", "is left over from an interrupted pip"),
}
"""What entry_points.txt holds, and what is said of it."""


def put_damaged(site: Path) -> None:
    """Ten packages whose entry_points.txt is damaged."""
    for name, (raw, _) in DAMAGED.items():
        put(site, name, raw, NORM)


BROKEN: dict[str, str] = {
    "lonely": "failed to load: ModuleNotFoundError: No module named 'cuda_magic'",
    "nameless": "failed to load: AttributeError",
    "numeric": "is not a class (got int)",
    "exploding": "failed to load: RuntimeError: no driver, no norm",
    "quitting": "failed to load: SystemExit: 3",
    "twin-one": "norm 'twin' is also offered by twin-two 1.0",
    "twin-two": "norm 'twin' is also offered by twin-one 1.0",
    "thief": "norm 'in' is i2ikit's own",
    "headless": "METADATA has no Name and no Version",
    "moved-away": "failed to load: ModuleNotFoundError: No module named 'moved_away'",
    "doubled": "is on the path twice; 2.0 is used",
    "swallowing": "takes *args or **kwargs, which would hide typos",
    "hollow": "translator 'hollow' (hollow:Norm) is invalid: it does not subclass Translator",
    "grouped": "[i2ikit.norm] is not an entry-point group of i2ikit; did you mean 'i2ikit.norms'?",
}
"""Package to what is said of it."""


def put_broken(site: Path) -> None:
    """Packages whose metadata can be read, but that are broken in other ways."""
    put(site, "lonely", norm("lonely", "lonely:Norm"), "import cuda_magic\n")
    put(site, "nameless", norm("nameless", "nameless:Nrom"), NORM)
    put(site, "numeric", norm("numeric", "numeric:Norm"), "Norm = 42\n")
    put(
        site, "exploding", norm("exploding", "exploding:Norm"), "raise RuntimeError('no driver,\\nno norm')\n"
    )
    put(
        site,
        "quitting",
        norm("quitting", "quitting:Norm"),
        "print('I was imported')\nimport sys; sys.exit(3)\n",
    )
    put(site, "twin_one", norm("twin", "twin_one:Norm"), NORM)
    put(site, "twin_two", norm("twin", "twin_two:Norm"), NORM)
    put(site, "thief", norm("in", "thief:Norm"), NORM)
    put(site, "headless", norm("headless", "headless:Norm"), NORM, metadata="\x00\x01 not headers\n")
    # What `pip install -e` leaves when the project's folder is moved.
    put(site, "moved_away", norm("moved", "moved_away:Norm"))
    (site / "moved_away.pth").write_text("/nowhere/moved-away\n")
    put(site, "doubled", norm("doubled", "doubled:Norm"), NORM, version="2.0")
    put(site / "later", "doubled", norm("doubled", "doubled:Gone"), version="1.0")
    greedy = NORM.replace("channels: int", "channels: int, **options: int")
    put(site, "swallowing", norm("swallowing", "swallowing:Norm"), greedy)
    put(site, "hollow", "[i2ikit.translators]\nhollow = hollow:Norm\n", NORM)
    put(site, "grouped", "[i2ikit.norm]\ngrouped = grouped:Norm\n", NORM)


PIP_INSTALL = (
    "-m",
    "pip",
    "install",
    "--quiet",
    "--no-deps",
    "--no-build-isolation",
    "--disable-pip-version-check",
)
"""Arguments that install a project without a network."""
