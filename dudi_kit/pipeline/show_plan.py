"""A plan in the terminal, readable at 80 columns: what was decided, tokens by language, memory by part and stage."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dudi_kit.console import notice
from dudi_kit.errors import EnvironmentLack
from dudi_kit.plan.hardware import Hardware
from dudi_kit.plan.launchers import Launcher, slurm_script
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import (
    LanguageShare,
    ModelSource,
    Plan,
    PlannedCache,
    PlannedDisk,
    PlannedMemory,
    PlannedPruning,
    Remedy,
    StageMemory,
)
from dudi_kit.report.pruning import HEADS, LEGEND, kept, pruned_rows
from dudi_kit.report.terminal import language_name

GIB, GB = 2**30, 10**9
TIGHT = 0.9
"""Of the limit: beyond it the estimate's own error, and what an allocator keeps unused, may break it."""

PARTS = {
    "libraries": "libraries",
    "weights": "student weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "engine": "engine's buffers",
    "teacher": "teacher weights",
    "reference": "reference weights",
    "activations": "activations",
    "logits": "logits",
    "rollouts": "rollouts (KV cache)",
    "allocator": "kept by malloc",
}
LARGEST, NAMED = 3, 0.05
"""Where the whole does not fit, as many parts are named, those above this share of it."""


def show_plan(console: Console, plan: Plan, run: RunDir, *, main: bool) -> None:
    """Print a plan. main: the recipe's own, in full; of a stage that it needs, the gist."""
    console.print(Text(f"{plan.name} → {run.path}", style="bold"))
    for name, text in _lines(plan, main=main):
        _print_line(console, name, text)
    if main:
        if plan.pruning and plan.pruning.languages:
            console.print(_indented(_pruning_table(plan.pruning)), soft_wrap=False)  # or its caption is cut off
        console.print(_indented(_language_table(plan.languages, teacher=plan.vocabulary is not None)))
        console.print(_indented(_memory_table(plan.memory)))
        for name, text in _after(plan):
            _print_line(console, name, text)
    for name, text in [*(("note", text) for text in plan.notices), *(("reads", path) for path in plan.outside)]:
        _print_line(console, name, text)


def require_fit(plans: Sequence[Plan]) -> None:
    """EnvironmentLack where the estimate exceeds the hardware that was named, with what would help."""
    if faults := [misfit(plan) for plan in plans if not plan.memory.fits]:
        raise EnvironmentLack("\n".join(faults))


def warn_of_misfit(plans: Sequence[Plan]) -> None:
    """Where nobody named the hardware, or training begins: it is an estimate, and the run may prove it wrong."""
    for plan in plans:
        if not plan.memory.fits:
            notice(f"warning: {misfit(plan)}", style="yellow")


def misfit(plan: Plan) -> str:
    """What does not fit, its largest parts, and the fields that would help, each with what it saves alone."""
    memory = plan.memory
    parts = memory.chosen.phases[memory.chosen.peak_phase]
    by_size = sorted(parts, key=lambda part: -parts[part])[:LARGEST]
    largest = [part for part in by_size if parts[part] > NAMED * memory.chosen.peak_bytes]
    named = ", ".join(f"{PARTS[part]} ({_gib(parts[part])})" for part in largest)
    first = (
        f"{plan.name} does not fit {memory.hardware}: a process needs about {_gib(memory.chosen.peak_bytes)} GiB and "
        f"has {_gib(memory.limit_bytes)}. Most take {named}."
    )
    return "\n".join([first, *_remedies(memory)])


def emitted(launcher: Launcher, plans: Sequence[Plan], runs: Sequence[RunDir], hardware: Hardware, file: Path) -> str:
    """Lines of a shell, or a script for Slurm, that train all planned run directories, in their order."""
    if launcher == "slurm":
        then = f"dudi-kit evaluate {shlex.quote(str(file))}, with the options of this plan"
        return slurm_script(plans[-1].name, [str(run.path) for run in runs], hardware, then=then)
    return "\n".join(plan.launchers[launcher] for plan in plans)


def _remedies(memory: PlannedMemory) -> list[str]:
    if not memory.remedies:
        return ["No field would help: choose smaller models, or larger hardware."]
    width = max(len(_change(remedy)) for remedy in memory.remedies)
    lines = ["What would help, each alone:"]
    for remedy in memory.remedies:
        saved = memory.chosen.peak_bytes - remedy.peak_bytes
        verdict = "fits" if remedy.peak_bytes <= memory.limit_bytes else "not enough alone"
        lines.append(
            f"  {_change(remedy):{width}}  saves {_gib(saved):>6} GiB → {_gib(remedy.peak_bytes):>6}, {verdict}"
        )
    return lines


def _change(remedy: Remedy) -> str:
    return f"{remedy.field}: {remedy.now} → {remedy.then}"


def _lines(plan: Plan, *, main: bool) -> list[tuple[str, str]]:
    """What was decided, one thing a line."""
    memory = plan.memory
    epochs = plan.steps * plan.batch_size / plan.rows_per_epoch
    lines = [
        ("hardware", f"{memory.hardware}, {_processes(plan)}"),
        ("student", f"{plan.parameters:,} parameters in {_precision(plan)}{_trained(plan)}, from {_start(plan.start)}"),
        *([("cut", f"of {plan.pruning.model}: {kept(plan.pruning)}")] if plan.pruning else []),
        *([("teacher", _teacher(plan.teacher_parameters, plan.teacher))] if plan.teacher and plan.vocabulary else []),
        (
            "steps",
            f"{plan.steps:,} of {plan.batch_size} rows ({plan.processes} × {plan.micro_batch_size} × "
            f"{plan.accumulation}: processes, micro-batch, accumulation), {epochs:.1f} epochs",
        ),
    ]
    if not main:
        rows = "  ".join(f"{code} {share.rows:,}" for code, share in plan.languages.items())
        peak = f"{_gib(memory.chosen.peak_bytes)} GiB of {_gib(memory.limit_bytes)} {_verdict(memory, memory.chosen)}"
        lines += [("rows", rows), ("memory", f"{peak}, the most while it does: {memory.chosen.peak_phase}")]
    return lines


def _after(plan: Plan) -> list[tuple[str, str]]:
    """Disk, main memory and how it starts."""
    memory = plan.memory
    each = "" if memory.nodes == 1 else " of each machine"
    loading = f"about {_gib(memory.host_bytes)} GiB of main memory{each} while all processes load their models"
    return [
        ("disk", _disk(plan.disk)),
        *([("cache", _teacher_cache(plan.cache))] if plan.cache and plan.cache.teacher else []),
        *([] if memory.hardware.startswith("cpu-") else [("loading", loading)]),
        *([("offloaded", _offloaded(plan))] if memory.offloaded_bytes else []),
        ("launch", shlex.join(plan.launch) if memory.nodes == 1 else plan.launchers["torchrun"]),
    ]


def _offloaded(plan: Plan) -> str:
    """`about 12.1 GiB of main memory of each machine: optimizer to cpu, parameters to nvme`."""
    zero, each = plan.deepspeed["zero_optimization"], "" if plan.memory.nodes == 1 else " of each machine"
    parts = {"optimizer": "offload_optimizer", "parameters": "offload_param"}
    moved = ", ".join(f"{part} to {zero[key]['device']}" for part, key in parts.items() if key in zero)
    return f"about {_gib(plan.memory.offloaded_bytes)} GiB{each} outside the GPUs while training: {moved}"


def _processes(plan: Plan) -> str:
    if plan.memory.nodes > 1:
        return f"{plan.processes} processes on {plan.memory.nodes} machines"
    return "1 process" if plan.processes == 1 else f"{plan.processes} processes"


def _precision(plan: Plan) -> str:
    return "bf16" if plan.deepspeed["bf16"]["enabled"] else "fp32"


def _trained(plan: Plan) -> str:
    """Of an adapter."""
    adapter = plan.trained_parameters
    return "" if adapter is None else f", {adapter:,} more trained ({adapter / plan.parameters:.2%})"


def _start(source: ModelSource | None) -> str:
    return source.path if source else "random weights"


def _teacher(parameters: int | None, source: ModelSource) -> str:
    held = source.dtype if source.quantization == "none" else source.quantization
    placed = {"device": "", "offload": f", {source.device_memory} of them on the device", "sharded": ", shared out"}
    return f"{parameters:,} parameters in {held}{placed[source.placement]}, {source.path}"


def _disk(disk: PlannedDisk) -> str:
    """`22.9 GB: 3 checkpoints of 6.9, the final model 2.0`."""
    plural = "" if disk.checkpoints == 1 else "s"
    checkpoints = f"{disk.checkpoints} checkpoint{plural} of {_gb(disk.checkpoint_bytes)}, " if disk.checkpoints else ""
    pruned = f"the student as it was cut {_gb(disk.pruned_bytes)}, " if disk.pruned_bytes else ""
    cached = f", answers {_gb(disk.cache_bytes)}" if disk.cache_bytes else ""
    models = f"{checkpoints}the final model {_gb(disk.final_bytes)}"
    return f"{_gb(disk.total_bytes)} GB: {models}, {pruned}tokenizers{cached}"


def _teacher_cache(cache: PlannedCache) -> str:
    """`1,000 of 24,000 rows answered, about 0.24 GB in all; the teacher leaves memory when all are (…/.cache/…)`."""
    store = cache.teacher
    assert store is not None, "asked for one that there is"
    then = "stays in memory, signals.on_policy asks it"
    if cache.teacher_leaves:
        then = "is not loaded" if cache.needs_no_teacher else "leaves memory when all are"
    answered = f"{store.answered:,} of {store.rows:,} rows answered, about {_gb(store.bytes)} GB in all"
    return f"{answered}; the teacher {then} ({store.folder})"


def _language_table(languages: dict[str, LanguageShare], *, teacher: bool) -> Table:
    table = _table("tokens by language")
    table.add_column("")
    for head in ("rows", "an epoch", "prompts", "responses", *(["teacher reads"] if teacher else [])):
        table.add_column(head, justify="right")
    for code, share in languages.items():
        table.add_row(language_name(code), *_cells([share], teacher=teacher))
    if len(languages) > 1:
        table.add_section()
        table.add_row("all", *_cells(list(languages.values()), teacher=teacher))
    return table


def _pruning_table(pruning: PlannedPruning) -> Table:
    table = _table("trimmed vocabulary by language")
    table.add_column("")
    for head in HEADS:
        table.add_column(head, justify="right")
    for row in pruned_rows(pruning):
        table.add_row(row.language, *row.cells)
    table.caption = Text(f"{LEGEND} {pruning.common_pieces:,} bytes, special pieces and letters stay for no text.")
    table.caption_justify = "left"
    return table


def _cells(shares: Sequence[LanguageShare], *, teacher: bool) -> list[str]:
    fields = ["rows", "rows_per_epoch", "prompt_tokens", "response_tokens"]
    fields += ["teacher_prompt_tokens"] if teacher else []
    return [f"{sum(getattr(share, field) for share in shares):,}" for field in fields]


def _memory_table(memory: PlannedMemory) -> Table:
    """Parts × stages at each stage's peak; what is not alive then is in brackets and not in the sum."""
    table = _table(f"memory of each process in GiB, of {_gib(memory.limit_bytes)}")
    table.add_column("")
    for made in memory.stages:
        own = made.stage == memory.stage
        mark = "▸" if own else ""
        table.add_column(f"{mark}ZeRO {made.stage}", justify="right", style="bold" if own else "")
    for part, label in PARTS.items():
        if any(part in parts for made in memory.stages for parts in made.phases.values()):
            cells = [_part(made, part) for made in memory.stages]
            if any(cell.strip("()") != "0.00" for cell in cells):
                table.add_row(label, *cells)
    table.add_section()
    table.add_row("at the peak", *(f"{_gib(made.peak_bytes)}" for made in memory.stages))
    table.add_row("which is", *(made.peak_phase for made in memory.stages))
    table.add_row("fits", *(_verdict(memory, made) for made in memory.stages))
    table.caption = Text("\n".join(_legend(memory)))
    table.caption_justify = "left"
    return table


def _legend(memory: PlannedMemory) -> list[str]:
    bracketed = any("(" in _part(made, part) for made in memory.stages for part in PARTS)
    return [
        "▸ the recipe's stage. An estimate: leave a tenth free.",
        *(["( ) at its own time, not at the peak."] if bracketed else []),
    ]


def _part(made: StageMemory, part: str) -> str:
    at_peak = made.phases[made.peak_phase].get(part, 0)
    most = max(parts.get(part, 0) for parts in made.phases.values())
    return _gib(at_peak) if at_peak or not most else f"({_gib(most)})"


def _verdict(memory: PlannedMemory, made: StageMemory) -> Text:
    share = made.peak_bytes / memory.limit_bytes
    if share > 1:
        return Text("✗", style="red")
    return Text("✓ tight", style="yellow") if share > TIGHT else Text("✓", style="green")


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _indented(made: RenderableType) -> Padding:
    return Padding(Group(made), (0, 0, 1, 2), expand=False)


def _print_line(console: Console, name: str, text: str) -> None:
    """A label and its text, which in a terminal goes on under itself; elsewhere it stays one line to search for."""
    if not console.is_terminal:
        console.print(Text(f"  {name:10} {text}"))
        return
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=12)
    table.add_column(overflow="fold")
    table.add_row(Text(f"  {name}"), Text(text))
    console.print(table)


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f}" if size >= 10 * GIB else f"{size / GIB:.2f}"


def _gb(size: int) -> str:
    return f"{size / GB:,.1f}"
