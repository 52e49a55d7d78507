"""Help as people read it: commands by what they are for, many options in groups, and examples that work as they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "From images to results": ("segment", "inspect", "classify-us"),
    "Every night, and as it comes": ("night", "listen", "module", "pacs"),
    "This machine and its weights": ("doctor", "weights", "models"),
    "Training and evaluation": (
        "train",
        "finetune",
        "evaluate",
        "export",
        "prune-curve",
        "dataset",
        "plan",
        "recipe",
        "phantom",
    ),
}
"""The commands by what they are for; one that stands nowhere here comes last, as "More"."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "What is done": ("--input", "--organ", "--weights", "--manifest", "--include", "--exclude", "--offline"),
    "Which studies": ("--study-uid", "--series-uid", "--accession", "--patient-id", "--date", "--since", "--modality",
                      "--limit"),
    "How masks are made": ("--device", "--precision", "--overlap", "--fast", "--mirror", "--prune-depth", "--scout",
                           "--second-look", "--threads"),
    "How clips are looked at": ("--every", "--crop"),
    "What is written": ("--output", "--ml", "--output-type", "--seg-encoding", "--preview", "--attention", "--annotate",
                        "--include-identifiers", "--csv", "--metrics", "--audit"),
    "The run": ("--overwrite", "--dry-run", "--deadline", "--min-age", "--study-timeout", "--readers", "--num-parts",
                "--part-id", "--cluster", "--cluster-config", "--on-end", "--webhook"),
    "The archive": ("--pacs", "--aet", "--move-port", "--move-from", "--credentials", "--timeout", "--retries", "--ca-file",
                    "--tls-cert", "--tls-key", "--allow-plain-http"),
    "What is said": ("--json", "--quiet", "--verbose", "--debug", "--config", "--help"),
}  # fmt: skip
"""Options by what they are for, on pages with many of them."""

MANY = 16
"""A page with more options than this has them in groups."""

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "segment": (
        ("agseg segment ./studies", "every CT study below the folder, all organs of the default weights"),
        ("agseg segment ./studies --organ pancreas,liver -o results", "two organs"),
        ("agseg segment ./studies --output-type dicom-seg --output-type dicom-sr", "for an archive"),
        ("agseg segment /srv/agseg/in -o /srv/agseg/out --min-age 5m --deadline 5h", "at night"),
    ),
    "inspect": (("agseg inspect ./studies -v", "every file, and why it belongs to no study"),),
    "classify-us": (("agseg classify-us clip.mp4 --annotate", "a timeline, the best frames, a video with labels"),),
    "night": (("agseg night --config /etc/agseg/site.yaml --since 36h", "what has come in the last day and a half"),),
    "listen": (("agseg listen --config /etc/agseg/site.yaml", "until SIGTERM"),),
    "module": (("agseg module /input /output", "in a container"),),
    "doctor": (("agseg doctor -o /srv/agseg/out", "before the first night"),),
    "pacs pull": (("agseg pacs pull --pacs dicom://PACS@pacs.example.org:104 --since 36h -o incoming", "by DIMSE"),),
    "pacs push": (("agseg pacs push results --pacs https://pacs.example.org/dicom-web", "by DICOMweb"),),
    "weights fetch": (("agseg weights fetch obelisk-tcia", "one entry, checked by its digests"),),
    "weights import": (("agseg weights import model.zip --as liver-ours", "a trained nnU-Net v2 model"),),
    "train": (("agseg train unet3d-ct82-scr --data ./ct82", "a recipe of the papers on a prepared cohort"),),
    "dataset check": (("agseg dataset check ./ct82", "every case to its last voxel"),),
}  # fmt: skip
"""Commands that work as they stand, and what they do."""


class Page(TyperCommand):
    """The help page of a command."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options; many of them in groups."""
        arguments = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == "argument"]
        named = {_long(parameter): parameter for parameter in self.get_params(ctx) if parameter not in arguments}
        groups: dict[str, tuple[str, ...]] = {}
        if len(named) > MANY:
            groups = {title: tuple(name for name in names if name in named) for title, names in OPTIONS.items()}
        placed = {name for names in groups.values() for name in names}
        rest = tuple(name for name in named if name not in placed)
        _write(formatter, "Arguments", [(_plain(record[0]), record[1]) for record in _records(ctx, arguments)])
        for title, names in [*groups.items(), ("Options" if not groups else "More", rest)]:
            _write(formatter, title, _records(ctx, [named[name] for name in names]))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples."""
        super().format_epilog(ctx, formatter)
        examples = EXAMPLES.get(" ".join(ctx.command_path.split()[1:]), ())
        if not examples:
            return
        with formatter.section("Examples"):
            for command, purpose in examples:
                for line in _folded(command, formatter.width - 4):
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                formatter.write(f"{'':{formatter.current_indent}}    {purpose}\n")


class Shelf(typer.Typer):
    """A table of commands, each with a :class:`Page`."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **more: Any) -> Callable[[Any], Any]:
        """As ``typer.Typer.command``."""
        return super().command(name, cls=cls or Page, **more)


def _long(parameter: Any) -> str:
    return str(next((option for option in parameter.opts if option.startswith("--")), parameter.opts[0]))


def _records(ctx: Any, parameters: list[Any]) -> list[tuple[str, str]]:
    return [record for parameter in parameters if (record := parameter.get_help_record(ctx)) is not None]


def _plain(heading: str) -> str:
    """An argument's name without the Python type behind it."""
    return heading.partition(" <")[0]


def _write(formatter: Any, title: str, records: list[tuple[str, str]]) -> None:
    if records:
        with formatter.section(title):
            formatter.write_dl(records)


def _folded(command: str, width: int) -> list[str]:
    """A command in lines that a shell takes as one."""
    lines = [""]
    for word in command.split():
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
