"""Draw tasks, and learn from them: what ships in `napari_msseg/weights`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_msseg.errors import InputError

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command()
def tasks(
    bank: Annotated[Path, typer.Argument(help="folder to write to")],
    kind: Annotated[str, typer.Option(help="as of training.tasks.KINDS")],
    count: Annotated[int, typer.Option(min=100)] = 1000,
    seed: int = 0,
    data: Annotated[Path | None, typer.Option(help="folder with the npz sets")] = None,
) -> None:
    """Draw tasks of a kind."""
    from training.tasks import write_bank

    for done in write_bank(bank, kind, data, count, seed):
        print(f"{kind}: {done}", flush=True)


@app.command()
def guide(
    bank: Path,
    out: Annotated[Path, typer.Option("--out", "-o")],
    ndim: Annotated[int, typer.Option(min=2, max=3, help="2: of images, 3: of volumes")] = 2,
    without: Annotated[list[str] | None, typer.Option(help="kinds to leave out")] = None,
    minutes: float = 45.0,
    seed: int = 0,
    start: Annotated[Path | None, typer.Option(help="weights to go on from")] = None,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Train a guided network."""
    import torch

    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.devices import choose_device
    from training.guide import Bank, train
    from training.tasks import KINDS

    torch.set_num_threads(threads)
    kinds = [kind for kind in KINDS[ndim] if kind not in (without or [])]

    def tell(words: Any) -> None:
        print(words, flush=True)

    begin = Checkpoint.load(start) if start else None
    train(Bank(bank, kinds), 60 * minutes, seed, choose_device(device), begin, tell).save(out)


@app.command()
def tables(
    folder: Annotated[Path, typer.Argument(help="folder to write to")],
    count: Annotated[int, typer.Option(min=100)] = 3000,
    seed: int = 0,
) -> None:
    """Draw synthetic volumes, and tabulate how good answers over them are."""
    from training.appraiser import write_tables

    for done in write_tables(folder, count, seed):
        print(f"volumes: {done}", flush=True)


@app.command()
def appraiser(
    folder: Annotated[Path, typer.Argument(help="with tables")],
    out: Annotated[Path, typer.Option("--out", "-o")],
    seed: int = 0,
) -> None:
    """Train what chooses among answers over a volume."""
    from training.appraiser import learn

    learn(folder, out, seed, lambda words: print(words, flush=True))


if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
