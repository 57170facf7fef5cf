"""MUNIT (NVlabs/MUNIT): gen_N.pt and dis_N.pt, with a state dict for each domain, and its YAML."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from i2ikit.errors import WeightsError, in_one_line, shortened, shown
from i2ikit.exchange.assembly import Assembly, OfficialFile, OfficialState, same_component, spec_of, under
from i2ikit.official.munit import (
    DiscriminatorStructure,
    GeneratorStructure,
    components,
    recognise,
    structure_of,
    to_official,
    to_ours,
)
from i2ikit.translator import Translator

__all__ = ["ENDINGS", "assemble", "munit_files", "read_config"]

ENDINGS = (".yaml", ".yml")
LONGEST_CONFIG = 100_000
LICENCE = (
    "the official MUNIT, its code and the weights released with it, is for non-commercial use "
    "(CC BY-NC-SA 4.0)"
)
ROLES = {"content_encoder": "content_encoders", "style_encoder": "style_encoders", "decoder": "decoders"}
"""Our roles, by the options of the translator that build them."""

WEIGHTS = {
    "gan_w": "adversarial",
    "recon_x_w": "image_recon",
    "recon_s_w": "style_recon",
    "recon_c_w": "content_recon",
    "recon_x_cyc_w": "cycle_recon",
    "vgg_w": "perceptual",
}
"""Our loss for each weight in the YAML."""

FIXED = {
    ("gen", "activ"): "relu",
    ("gen", "pad_type"): "reflect",
    ("dis", "activ"): "lrelu",
    ("dis", "pad_type"): "reflect",
}
"""Options of the networks that ours do not have, and the only value that they support."""

ADVERSARIAL = ("lsgan", "nsgan")
"""Our losses, which have the names of the official ones."""


def assemble(files: Sequence[OfficialFile], config: Mapping[str, Any] | None) -> Assembly:
    """A MUNIT, whose generators are in one file and its discriminators in another.

    Args:
        config: the YAML with which it was trained.

    Raises:
        WeightsError: a file is not of such networks, or they do not make up a translator.
    """
    generators, judges, taken = None, None, {}
    for file in files:
        both = {domain: file.read(lambda x, d=domain: recognise(_of(x, d))) for domain in "ab"}  # type: ignore[misc]
        if all(isinstance(s, GeneratorStructure) for s in both.values()) and generators is None:
            generators, taken[file.path] = (file, both), "encoders and decoders of both domains"
        elif all(isinstance(s, DiscriminatorStructure) for s in both.values()) and judges is None:
            judges, taken[file.path] = (file, both), "discriminators of both domains"
        else:
            raise WeightsError(f"{file.path}: give one file of generators, and at most one of discriminators")
    if generators is None:
        raise WeightsError("none of these files holds generators, without which nothing can be translated")
    channels = {domain: s.channels for domain, s in generators[1].items()}
    same = _same(generators)
    assert isinstance(same, GeneratorStructure)
    translator: dict[str, Any] = {"style_dim": same.style_dim}
    translator |= {option: spec.table() for option, spec in components(same).items()}
    weights = _weights(generators[0])
    if judges is not None:
        translator |= {option: spec.table() for option, spec in components(_judge(judges, config)).items()}
        weights |= _weights(judges[0])
    options, notes = _configured(config)
    options["translator"] = {**translator, **options.get("translator", {})}
    fresh = ["discriminators"] if judges is None else []
    return Assembly("MUNIT", "munit-paper", options, channels, weights, taken, fresh, LICENCE, notes)


Found = tuple[OfficialFile, Mapping[str, GeneratorStructure | DiscriminatorStructure]]


def _of(content: Mapping[str, Any], domain: str) -> Mapping[str, Tensor]:
    found = content.get(domain)
    if not isinstance(found, Mapping) or set(content) != {"a", "b"}:
        raise WeightsError("a file of MUNIT holds the state dicts 'a' and 'b', of both domains")
    if not all(isinstance(x, Tensor) for x in found.values()):
        raise WeightsError(f"'{domain}' is not a state dict")
    return found


def _same(found: Found) -> GeneratorStructure | DiscriminatorStructure:
    file, both = found
    return same_component(
        {file.path / domain: dataclasses.replace(s, channels=1) for domain, s in both.items()}
    )


def _judge(found: Found, config: Mapping[str, Any] | None) -> DiscriminatorStructure:
    """The structure of the discriminators; instance norm is named in the YAML only."""
    structure = _same(found)
    assert isinstance(structure, DiscriminatorStructure)
    named = _section(config, "dis").get("norm")
    return dataclasses.replace(structure, norm="instance") if named == "in" else structure


def _weights(file: OfficialFile) -> dict[str, Tensor]:
    """Our tensors by `role.domain.name`."""
    found: dict[str, Tensor] = {}
    for domain in "ab":
        for option, tensors in file.read(lambda x, d=domain: to_ours(_of(x, d))).items():  # type: ignore[misc]
            found |= under(f"{ROLES.get(option, 'discriminators')}.{domain}", tensors)
    return found


def read_config(path: Path) -> dict[str, Any]:
    """The YAML of a training, which may hold plain values only.

    Raises:
        WeightsError: it cannot be read, or is not YAML with options.
    """
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            raise WeightsError(f"{path} has more than {LONGEST_CONFIG:,} bytes, which no configuration has")
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    except WeightsError:
        raise
    except Exception as error:  # PyYAML converts values with functions that raise errors of their own
        raise WeightsError(f"{path} is not YAML: {shortened(in_one_line(error), 200)}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no options")
    return found


def _section(config: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found = (config or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def _configured(config: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """A table of recipe keys from the YAML, and remarks.

    Raises:
        WeightsError: it names an option that our networks do not have.
    """
    if config is None:
        return {}, ["without the YAML of its training, the recipe has the published options"]
    for (section, key), value in FIXED.items():
        if (given := _section(config, section).get(key, value)) != value:
            raise WeightsError(
                f"the YAML has {section}.{key} = {shown(given)}; i2ikit's MUNIT has only {value!r}"
            )
    numbers = {key: number for key, value in config.items() if (number := _number(value)) is not None}
    notes = []
    generator = {ours: float(numbers[key]) for key, ours in WEIGHTS.items() if key in numbers}
    translator: dict[str, Any] = {"weights": {"generator": generator}} if generator else {}
    if "gan_w" in numbers:
        translator["weights"]["discriminator"] = {"adversarial": float(numbers["gan_w"])}
    kind = _section(config, "dis").get("gan_type", "lsgan")
    if kind not in ADVERSARIAL:
        raise WeightsError(f"the YAML has dis.gan_type = {shown(kind)}; i2ikit has {', '.join(ADVERSARIAL)}")
    translator["adversarial_loss"] = kind
    table: dict[str, Any] = {"translator": translator, "training": {}, "optimizer": {}}
    for key, ours in (("lr", "lr"), ("weight_decay", "weight_decay"), ("gamma", "decay_factor")):
        if key in numbers:
            table["optimizer"][ours] = float(numbers[key])
    if {"beta1", "beta2"} <= numbers.keys():
        table["optimizer"]["betas"] = [float(numbers["beta1"]), float(numbers["beta2"])]
    for section, key, ours in (
        ("optimizer", "step_size", "decay_steps"),
        ("training", "max_iter", "steps"),
        ("training", "batch_size", "batch_size"),
    ):
        if key in numbers:
            table[section][ours] = int(numbers[key])
    crop, side = numbers.get("crop_image_height"), numbers.get("new_size", numbers.get("new_size_a"))
    if crop is not None and crop == numbers.get("crop_image_width", crop):
        table["data"] = {"size": int(crop)}
        if side is not None and side > crop:
            table["data"]["load_size"] = int(side)
    else:
        notes.append("the YAML has no square crop: the images have the usual size, or that of --size")
    policy = config.get("lr_policy", "step")
    if policy == "constant":
        for key in ("decay_steps", "decay_factor"):
            table["optimizer"].pop(key, None)
        table["optimizer"]["decay"] = "none"
    elif policy != "step":
        notes.append(f"lr_policy = {shown(policy)} is not supported; the recipe has 'step'")
    known = (*WEIGHTS, "lr", "weight_decay", "gamma", "beta1", "beta2", "step_size", "max_iter", "batch_size")
    if lost := [key for key in known if key in config and key not in numbers]:
        notes.append(f"these values of the YAML are not numbers, and are not used: {', '.join(lost)}")
    return table, notes


def _number(value: object) -> float | None:
    """A finite number; also text such as 1e-4, which YAML does not take for a number. Else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def munit_files(translator: Translator, judged: bool) -> OfficialState:
    """The files of a MUNIT, as of step 0.

    Args:
        judged: whether its discriminators are trained.

    Raises:
        WeightsError: the repository has no such network.
    """
    roles = {"gen": ROLES, "dis": {"discriminator": "discriminators"}}
    for name, by_option in roles.items():
        if name == "dis" and not judged:
            continue
        states = {}
        for letter, domain in zip("ab", translator.domains, strict=True):
            networks = {option: _at(translator, role, domain) for option, role in by_option.items()}
            specs = {option: spec_of(network) for option, network in networks.items()}
            channels = translator.images.channels[domain]
            structure = structure_of(specs, channels, translator.style_length(domain))
            tensors = {option: network.state_dict() for option, network in networks.items()}
            states[letter] = to_official(tensors, structure)
        yield f"{name}_00000000.pt", states


def _at(translator: Translator, role: str, domain: str) -> nn.Module:
    networks = translator.networks[role]
    assert isinstance(networks, nn.ModuleDict)
    return networks[domain]
