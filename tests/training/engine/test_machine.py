"""Device, threads and precision, which belong to the machine, and several processes, which train what one does."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from tests.training.test_train import metrics
from training import train
from training.config.experiment import Experiment, load_experiment
from training.engine import machine
from training.engine.machine import CommonBatchNorm, Machine, Processes, has_bfloat16, share_statistics
from training.engine.trainer import Trainer
from training.errors import ConfigError
from training.files import write_json
from training.runs.folder import RunFolder, list_checkpoints, load_checkpoint

RunVerb = Callable[..., None]


def test_the_environment_sets_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine keeps its choices in COGAN_ACCELERATOR, COGAN_THREADS and COGAN_PRECISION."""
    for name, value in (("ACCELERATOR", "cpu"), ("THREADS", "3"), ("PRECISION", "bf16-mixed")):
        monkeypatch.setenv(f"COGAN_{name}", value)
    assert Machine.from_environment() == Machine("cpu", 3, "bf16-mixed")
    monkeypatch.setenv("COGAN_THREADS", "many")
    with pytest.raises(ConfigError, match="COGAN_threads = 'many'"):
        Machine.from_environment()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("asimd bf16", True), ("fpu avx512f", False), ("", False)],
)
def test_bfloat16_is_chosen_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    """Emulated it would be slower than floats of 32 bits."""
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"model name : abacus\nflags : {flags}\n")
    assert has_bfloat16(torch.device("cpu")) == expected
    fabric = Machine(accelerator="cpu", threads=1).fabric()
    assert fabric._precision.precision == ("bf16-mixed" if expected else "32-true")


def test_a_run_keeps_what_was_chosen(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> None:
    """What the machine chose is resolved once, into the run, and taken up when it is resumed."""
    run_verb(train, write_experiment, "--runs", tmp_path, "--machine.precision", "bf16-mixed")
    (kept,) = json.loads((tmp_path / "00000_tiny/machines.json").read_text())
    assert (kept["accelerator"], kept["precision"]) == ("cpu", "bf16-mixed")
    assert Machine().resume(kept) == Machine("cpu", kept["threads"], "bf16-mixed")
    assert Machine(precision="32-true", threads=1).resume(kept) == Machine("cpu", 1, "32-true")
    assert Machine().resume({"device": "of an earlier version"}) == Machine()
    if not torch.cuda.is_available():
        assert Machine().resume({"accelerator": "cuda"}).accelerator == "auto"


def test_a_recipe_has_no_precision(
    write_experiment: Path, make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    """The error names where precision belongs now, and runs that kept it in their experiment are still read."""
    write_experiment.write_text('precision = "bf16-mixed"\n' + write_experiment.read_text())
    with pytest.raises(ConfigError, match=r"precision belongs to the machine: --machine\.precision bf16"):
        load_experiment(write_experiment)
    run = RunFolder.create(tmp_path, make_experiment())
    description = run.description()
    description["experiment"]["precision"] = "bf16-mixed"
    write_json(run.path / "experiment.json", description)
    assert run.experiment() == make_experiment()


MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--local-addr", "127.0.0.1"]
TORCHRUN += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m"]
OPTIONS = ["--steps", "6", "--log-every", "4", "--checkpoint-every", "4", "--generator.width", "0.03"]
OPTIONS += ["--machine.accelerator", "cpu", "--machine.threads", "1"]
AUXILIARY = """
[classifier]
batch_size = 6
confidence = 0.0
[[lessons]]
name = "labels"
weight = 1.0
[[lessons]]
name = "pseudo_labels"
weight = 1.0
[[lessons]]
name = "pair_labels"
weight = 1.0
"""
ALONE = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def assert_alike(run: Path, expected: Path) -> None:
    """Compare weights and metrics of two runs, but for rounding."""
    assert [line["step"] for line in metrics(run)] == [4, 6]
    for line, other in zip(metrics(run), metrics(expected), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-6)
    state, other_state = (load_checkpoint(folder / "checkpoints") for folder in (run, expected))
    assert state["steps_done"] == other_state["steps_done"] == 6
    assert state.keys() == other_state.keys()
    for network in state.keys() & {"generator", "discriminator", "average", "teacher"}:
        torch.testing.assert_close(state[network], other_state[network], rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(300)  # two processes that load PyTorch
@pytest.mark.parametrize("auxiliary", [False, True], ids=["plain", "auxiliary"])
def test_two_processes_train_what_one_does(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, auxiliary: bool
) -> None:
    """From the same batches the same weights and metrics come, but for rounding, and one folder of files.

    With batch normalisation, a penalty on gradients, three domains and an average, without lessons and with
    them; and one process may go on where two have stopped.
    """
    if auxiliary:
        text = write_experiment.read_text().replace("[[domains]]", "[[domains]]\nlabelled = true", 1)
        write_experiment.write_text(text + AUXILIARY)
    run_verb(train, write_experiment, "--runs", tmp_path / "one", *OPTIONS)
    command = [*TORCHRUN, "training.train", str(write_experiment), "--runs", str(tmp_path / "two"), *OPTIONS]
    subprocess.run(command, cwd=ROOT, env=os.environ | ALONE, check=True, timeout=280)
    one, two = tmp_path / "one" / "00000_tiny", tmp_path / "two" / "00000_tiny"
    assert {entry.name for entry in two.parent.iterdir()} == {".lock", two.name}
    assert {file.name for file in two.iterdir()} == {file.name for file in one.iterdir()}
    assert_alike(two, one)
    list_checkpoints(two / "checkpoints")[-1].unlink()
    run_verb(train, two, "--machine.accelerator", "cpu")
    assert_alike(two, one)


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    """Begin a group of one process, which the layers then talk to."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (6, 3, 4, 5))])
def test_common_statistics_are_those_of_pytorch(kind: type[nn.BatchNorm1d], shape: tuple[int, ...]) -> None:
    """Over a whole batch the layer has PyTorch's values, gradients, their gradients, and statistics."""
    torch.manual_seed(0)
    norm = kind(3, eps=0.01, momentum=0.3)
    nn.init.normal_(norm.weight)
    theirs = nn.Sequential(norm)
    ours = copy.deepcopy(theirs)
    share_statistics(ours)
    assert isinstance(ours[0], CommonBatchNorm)

    def tried(network: nn.Module) -> list[Tensor]:
        values = torch.linspace(-3, 5, 6 * 3 * (20 if len(shape) > 2 else 1)).reshape(shape).requires_grad_()
        out = network(values.sin())
        (slope,) = torch.autograd.grad(out.pow(3).sum(), values, create_graph=True)
        slope.square().sum().backward()
        weights = [weight.grad for weight in network.parameters() if weight.grad is not None]
        return [out, slope, *weights, *network.eval()(values)]

    torch.testing.assert_close(tried(ours), tried(theirs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_batch_is_shared_out_evenly(fabric: Fabric) -> None:
    """Each process has its own rows, and a batch that leaves a rest is refused by its name."""
    processes = Processes(fabric)
    batch = torch.arange(6)[:, None]
    assert torch.equal(processes.share(batch), batch)
    processes.check(5)
    processes.count, processes.rank = 3, 1
    assert processes.share(batch).flatten().tolist() == [2, 3]
    with pytest.raises(ConfigError, match="batch_size = 5: must be a multiple of 3"):
        processes.check(5)


def test_a_batch_of_auxiliary_losses_is_split_evenly(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two processes cannot halve is refused before training, by its name."""
    monkeypatch.setattr(Fabric, "world_size", 2)
    lessons = [{"name": "labels", "weight": 1.0}]
    experiment = make_experiment(("known", "edge"), lessons=lessons, classifier={"batch_size": 3})
    with pytest.raises(ConfigError, match=r"classifier\.batch_size = 3: must be a multiple of 2"):
        make_trainer(experiment)
