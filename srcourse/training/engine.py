"""What all training methods share: device, precision, processes, data, schedule, log, validation, checkpoints.

A method builds its networks and optimizers through the engine, then loops over ``engine.steps()``; inside the loop
stands only what its paper's algorithm box says. Under the hood are accelerate and torch.distributed.
"""

import contextlib
import errno
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from srcourse import machine, metrics, models
from srcourse.data import Benchmark, PatchBank, Ratings
from srcourse.files import write_text
from srcourse.inference import upscale
from srcourse.models.weights import fingerprint, matching_state
from srcourse.progress import Steps, bar
from srcourse.seeds import mix
from srcourse.training.checkpoints import Checkpoints
from srcourse.training.continuing import image_fingerprint, refuse_another_run
from srcourse.training.folder import RunFolder, refuse_foreign
from srcourse.training.history import History
from srcourse.training.interrupt import StopRequest
from srcourse.training.plan import has_batch_norm, plan
from srcourse.training.recipe import Recipe

_VALIDATION_TILE = 512  # LR pixels: large photos are validated in pieces


class TrainingError(RuntimeError):
    """Training cannot go on; one line says why, and what is left."""


class Engine:
    """One run of a recipe. See `training.pixelwise` for how a method uses it.

    Parameters
    ----------
    recipe : Recipe
    photos : sequence of (3, H, W) tensors in [0, 1]
        To train on.
    validation : sequence of (3, H, W) tensors
        May be empty: then there is no validation.
    out : path, optional
        The run's folder: checkpoints, history, final weights. None keeps everything in memory.
    resume : bool
        Go on from the newest checkpoint in `out`.
    progress : bool
        Print the plan and a progress bar; in a log file, lines in the bar's place.
    """

    result = "generator"  # the network that a run is for
    quality = "psnr"  # what validation measures, higher is better

    def __init__(
        self,
        recipe: Recipe,
        photos: Sequence,
        validation: Sequence = (),
        *,
        out: Path | None = None,
        resume: bool = False,
        progress: bool = True,
    ):
        self.recipe, self.out, self.resume = recipe, out, resume
        if recipe.device in ("cuda", "mps") and machine.device().type != recipe.device:
            raise ValueError(f"device is {recipe.device!r}, and there is none here: expected 'auto' or 'cpu'")
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        # without a GPU, accelerate must be told so: else several processes on CPUs would each believe to be alone
        # buffers (BN's running statistics) are not sent around at each pass: a GAN's discriminator makes two before its update
        self.accelerator = Accelerator(
            cpu="cpu" in (recipe.device, machine.device().type), kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)]
        )
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.main = self.accelerator.is_main_process
        self.progress = progress and self.main
        self.precision = _precision(recipe.precision, self.device)
        self.pieces, self._piece = recipe.optimizer.accumulate, 0  # of a process's share of a batch; which one it is at
        self._check_slices("data.batch", recipe.data.batch)
        self.networks: dict[str, nn.Module] = {}  # as they are saved: without the wrappers of DDP and compile
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._validation_photos: list[list[str]] = []  # [name, fingerprint] of each
        self._judges: list[str] = []  # fingerprints of the networks that only judge
        self._unwrapped: set[int] = set()  # parameters whose gradients no wrapper shares among the processes
        self._waiting: list[torch.optim.Optimizer] = []  # those that move once the last piece was seen
        self._rates: dict[str, float] = {}  # each optimizer's learning rate, over the recipe's
        self.warnings: list[str] = []
        self.averaged: AveragedModel | None = None
        self.history = History(self.accelerator, out)
        self.step, self.seconds, self.interrupted, self.out_of_time = 0, 0.0, False, False
        self.best: dict[str, float | int | None] = {self.quality: None, "step": None, "waited": 0}
        self._folder: RunFolder | None = None
        self._stop = StopRequest()
        if out is not None:
            self.checkpoints = Checkpoints(out / "checkpoints")
            if self.main:
                self._folder = RunFolder(out, self.checkpoints)
            self.accelerator.wait_for_everyone()
        try:
            if out is not None:
                refuse_foreign(out, self.checkpoints, resume)
            self._load(photos, validation)
        except BaseException:
            self.release()
            raise

    def _check_slices(self, name: str, batch: int) -> None:
        if batch % (self.world * self.pieces):
            pieces = f", each in {self.pieces} pieces (optimizer.accumulate)" * (self.pieces > 1)
            raise ValueError(f"{name} is {batch}: expected a multiple of the {self.world} process{'es' * (self.world > 1)}{pieces}")

    def _load(self, photos: Sequence, validation: Sequence) -> None:
        if isinstance(photos, Ratings) or isinstance(validation, Ratings):
            raise ValueError(f"rated images are for method: scores, this recipe's is {self.recipe.method}: expected photos")
        data = self.recipe.data
        degrade = self.recipe.degradation()
        scale = self.recipe.enlargement
        self.validation = Benchmark("validation", scale, validation, degrade=degrade)
        seen = []
        for i in range(self.rank, len(self.validation), self.world):
            pair = self.validation[i]  # a photo that cannot be used is named now, not at the first validation
            if pair.hr.ndim != 3 or pair.hr.shape[0] != 3:
                raise ValueError(
                    f"validation photo {pair.name} has shape {tuple(pair.hr.shape)}: expected a colour image (3, height, width)"
                )
            if min(pair.hr.shape[-2:]) <= 2 * scale:
                raise ValueError(f"validation photo {pair.name} is too small: expected more than {2 * scale} pixels a side")
            seen.append([i, [pair.name, image_fingerprint(pair.hr)]])
        shares = gather_object(seen) if self.world > 1 else seen
        self._validation_photos = [photo for _, photo in sorted(shares)]
        self.bank = PatchBank(
            photos,
            scale=scale,
            patch=data.patch,
            degrade=degrade,
            more={s: self.recipe.degradation(s) for s in self.recipe.further_scales()},
            flip=data.flip,
            turn=data.turn,
            half_turn=data.half_turn,
            crops_per_image=data.crops_per_image,
            seed=self.recipe.seed,
            device=self.device,
            storage=data.storage,
            progress=lambda indices: bar(indices, "reading photos", shown=self.progress),
        )

    # --- what a method builds ---------------------------------------------------------------------------------

    def network(self, name: str, model: str, *, wrap: bool = True, **options: Any) -> nn.Module:
        """Create a network, the same in every process, placed and (unless a method does without) wrapped for several.

        The one that is the `result` is validated, averaged when the recipe asks for it, and saved at the end.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.recipe.seed, len(self.networks)))
            module = models.create(model, **options)
        start = self.recipe.start_weights()
        if name == self.result and start and not (self.resume and self.out is not None and self.checkpoints.steps()):
            module.load_state_dict(matching_state(module, start))
        if has_batch_norm(module) and self.world > 1 and self.device.type == "cuda":
            plain = module
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
            module.name, module.options = plain.name, plain.options
        module.to(self.device, memory_format=torch.channels_last)
        self.networks[name] = module
        if name == self.result and self.recipe.ema:
            self.averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(self.recipe.ema), use_buffers=True)
        running = torch.compile(module) if self.recipe.compile else module
        if not wrap:
            self._unwrapped |= {id(parameter) for parameter in module.parameters()}
        return self.accelerator.prepare_model(running) if wrap else running

    def optimizer(self, name: str, network: nn.Module, *, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """Adam as the recipe has it, for all parameters of a network; the schedule scales `learning_rate` alike."""
        part = self.recipe.optimizer
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(f"{self.recipe.model.name} has nothing to train: choose a network with parameters")
        self.optimizers[name] = torch.optim.Adam(parameters, lr=part.learning_rate, betas=part.betas)
        self._rates[name] = 1.0 if learning_rate is None else learning_rate / part.learning_rate
        return self.optimizers[name]

    def place(self, module: nn.Module) -> nn.Module:
        """A network that only judges, on the run's device: not trained, not saved, and the same when the run goes on."""
        self._judges.append(fingerprint(module))
        return module.requires_grad_(False).to(self.device, memory_format=torch.channels_last)

    # --- what a method's loop uses ----------------------------------------------------------------------------

    def batch(self, step: int, scale: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's share of batch `step`: HR (n, 3, patch, patch), and LR smaller by the scale of all passes.

        With `scale`, one of several: LR patches of the same size, and HR patches as large as it makes them.
        """
        rank, world = self.slice
        with self._reading():
            return self.bank.batch(step, self.recipe.data.batch, scale=scale, rank=rank, world=world)

    @property
    def slice(self) -> tuple[int, int]:
        """Which of how many equal slices of a batch comes next: one a process, times the pieces that each is cut into."""
        return self.rank * self.pieces + self._piece, self.world * self.pieces

    def autocast(self) -> contextlib.AbstractContextManager:
        """Around the networks' forward passes: bf16 where that is fast, nothing elsewhere. Losses stay outside."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def dice(self, step: int) -> Iterator[None]:
        """Around a forward pass with dropout: its random choices become a function of (seed, step, process), as resuming needs."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(mix(self.recipe.seed, step, self.slice[0]))
            yield

    def log(self, **terms: torch.Tensor) -> None:
        """Note this step's losses. Call it before the update: a loss that is not finite stops the run there."""
        self.history.note(self.step + 1, terms)
        if self.device.type == "cpu":  # on a GPU this waits for the row that is written
            self._check_finite(newest_only=True)

    def warn(self, message: str) -> None:
        """Tell the user once that the run does not go as it should; it goes on."""
        if message not in self.warnings:
            self.warnings.append(message)
            if self.progress:
                tqdm.write(f"warning: {message}")

    def update(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        """One step of gradient descent on `loss`; where a batch comes in pieces, its part of it."""
        if self._piece == 0:
            optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss / self.pieces)
        if self.pieces == 1:
            self._descend(optimizer)
        elif self._piece == self.pieces - 1:
            self._waiting.append(optimizer)

    def _descend(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = optimizer.param_groups[0]["params"]
        self._share_gradients(parameters)
        if self.recipe.optimizer.clip:
            self.accelerator.clip_grad_norm_(parameters, self.recipe.optimizer.clip)
        optimizer.step()

    def _share_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over the processes, where no wrapper did so during the backward pass."""
        if self.world > 1:
            for parameter in parameters:
                if id(parameter) in self._unwrapped and parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def steps(self) -> Iterator[int]:
        """The numbers of the steps to make, from where the run stands; between them, everything else happens.

        With ``optimizer.accumulate``, a number comes once for each piece of its batch. The optimizers move after the last
        one: so all pieces of a game are played between the same two networks.
        """
        recipe = self.recipe
        self._begin()
        start, before = time.monotonic(), self.seconds
        with self._stop, Steps(recipe.label, recipe.steps, done=self.step, minutes=recipe.minutes, shown=self.progress) as told:
            while self.step < recipe.steps:
                for name, optimizer in self.optimizers.items():
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.learning_rate(self.step) * self._rates[name]
                for piece in range(self.pieces):
                    self._piece = piece
                    yield self.step
                while self._waiting:
                    self._descend(self._waiting.pop(0))
                if self.averaged is not None:
                    self.averaged.update_parameters(self.networks[self.result])
                self.step += 1
                self.seconds = before + time.monotonic() - start
                told.advance()
                if self._after_step(told, time.monotonic() - start):
                    break

    # --- between the steps ------------------------------------------------------------------------------------

    def _after_step(self, told: Steps, running: float) -> bool:
        """Log, validate, save when due; True to stop."""
        recipe, step = self.recipe, self.step
        last = step == recipe.steps
        logging, validating, saving = (step % n == 0 for n in (recipe.log_every, recipe.validate_every, recipe.checkpoint_every))
        # processes agree on when to stop: at every step if there is one, at the log's pace if there are more
        signalled, self.out_of_time = self._stop.requested, recipe.minutes is not None and running > 60 * recipe.minutes
        if self.world > 1:
            signalled, self.out_of_time = self._any_process(signalled, self.out_of_time) if logging else (False, False)
        stop = signalled or self.out_of_time
        if not (logging or validating or saving or last or stop):
            return False
        self._check_finite()
        self._share_buffers()
        row = {"step": step, **self.history.means(), "learning_rate": recipe.learning_rate(step - 1), "seconds": round(self.seconds, 3)}
        exhausted = False
        if len(self.validation) and (validating or last):
            row[self.quality] = self._validate()
            exhausted, improved = self._judge(row[self.quality])
            saving |= improved
        shown = {key: value for key, value in row.items() if key not in ("step", "seconds", "learning_rate")}
        told.tell(step, shown, important=self.quality in row or last or stop)
        with self.writing("history.jsonl"):
            self.history.append(row)
        if saving or last or stop or exhausted:
            self._save()
        self.interrupted = signalled and not last
        return stop or exhausted

    def _check_finite(self, newest_only: bool = False) -> None:
        wrong = self.history.not_finite(newest_only)
        if wrong is None and not newest_only:
            wrong = self._broken_weight()
        if wrong is not None:
            step, name, value = wrong
            advice = "lower optimizer.learning_rate or set optimizer.clip"
            raise TrainingError(f"{name} is {value} at step {step}: training stopped, {self._left()}; {advice}")

    def _left(self, noun: str = "checkpoint") -> str:
        """What a run that stops leaves to go on from."""
        saved = [step for step in self.checkpoints.steps() if step <= self.step] if self.out is not None else []  # later ones are damaged
        return f"the last good {noun} is step {saved[-1]} in {self.out}" if saved else f"there is no {noun}"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Around what reads photos while the run goes on: one that is gone or spoilt stops it in one line."""
        try:
            yield
        except (OSError, ValueError) as error:
            if self.step == 0:
                raise  # the photos never fitted
            advice = "put back what was there, then --resume"
            raise TrainingError(f"{error} - found at step {self.step}: training stopped, {self._left()}; {advice}") from error

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Around what writes to the run's folder."""
        try:
            yield
        except Exception as error:  # OSError, or what safetensors and torch make of it
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "free some disk space" if full or "os error" in str(error).lower() else "see to the folder"
            left = self._left("one" if what.startswith("the checkpoint") else "checkpoint")
            raise TrainingError(f"cannot write {what} in {self.out} ({error}): {left}; {advice}, then --resume") from error

    def explained(self, error: RuntimeError) -> RuntimeError:
        """The error, or, if it means that another process of the run is gone, one that says so."""
        lost = isinstance(error, torch.distributed.DistError) or re.search(r"gloo|nccl|closed by peer|reset by peer", str(error), re.I)
        if self.world == 1 or isinstance(error, TrainingError) or not lost:
            return error
        advice = "see what it said, then start all of them again with --resume"
        return TrainingError(f"another process of this run is gone at step {self.step}: training stopped, {self._left()}; {advice}")

    def _broken_weight(self) -> tuple[int, str, float] | None:
        """(step, name, value) of a network that a step with finite losses has broken: its checkpoint would be worthless."""
        for name, network in self.networks.items():
            tensors = [t for t in network.state_dict().values() if t.is_floating_point()]
            if not torch.stack([torch.isfinite(t).all() for t in tensors]).all():  # one wait for the GPU, not one a tensor
                return self.step, f"a weight of the {name}", float("nan")
        return None

    def _validate(self) -> float:
        """Mean PSNR of the generator on the validation images by the papers' protocol, shared among the processes."""
        model = self.averaged.module if self.averaged is not None else self.networks[self.result]
        total = torch.zeros(2, dtype=torch.float64)
        for i in range(self.rank, len(self.validation), self.world):
            with self._reading():
                pair = self.validation[i]
                if image_fingerprint(pair.hr) != self._validation_photos[i][1]:
                    raise ValueError(f"validation photo {pair.name} is another one than at the start")
            sr = upscale(model, pair.lr, tile=_VALIDATION_TILE, passes=self.recipe.passes)
            total += torch.tensor([metrics.psnr(sr, pair.hr, border=self.validation.scale), 1.0], dtype=torch.float64)
        # float32 on the wire: MPS has no float64
        psnr_sum, count = self.accelerator.reduce(total.float().to(self.device), "sum").tolist() if self.world > 1 else total.tolist()
        return psnr_sum / count

    def _share_buffers(self) -> None:
        """Every process takes the main one's buffers: BN's running statistics differ where each keeps its own."""
        if self.world > 1:
            for network in self._saved_networks().values():
                for buffer in network.buffers():
                    torch.distributed.broadcast(buffer, src=0)

    def _judge(self, quality: float) -> tuple[bool, bool]:
        """(patience is exhausted, this is the best so far)"""
        if self.best[self.quality] is None or quality > self.best[self.quality]:
            self.best = {self.quality: quality, "step": self.step, "waited": 0}
            return False, True
        self.best["waited"] += 1
        return self.recipe.patience is not None and self.best["waited"] >= self.recipe.patience, False

    def _any_process(self, *wishes: bool) -> list[bool]:
        """For each wish, whether any process has it."""
        votes = self.accelerator.reduce(torch.tensor(wishes, dtype=torch.float32, device=self.device), "sum")
        return [vote > 0 for vote in votes.tolist()]

    # --- folders and checkpoints ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take up the newest checkpoint when resuming, then say what will happen."""
        if self.out is not None:
            step, damaged = self.checkpoints.newest_intact()
            if step is not None:
                self._restore(step)
            elif damaged:
                raise ValueError(f"every checkpoint in {self.out} is damaged (steps {damaged}): start anew in another folder")
            if damaged and self.main:
                print(f"checkpoint {damaged[0]} is damaged and was passed over: going on from step {step}")
        if self.main and self.out is not None:
            with self.writing("recipe.json"):  # before the history: a folder with a recipe alone is one to go on in
                write_text(self.out / "recipe.json", self.recipe.model_dump_json(indent=1))
            with self.writing("history.jsonl"):
                self.history.begin(self.step)
            if self.step:  # a kill may have come between the last checkpoint and the clearing after it
                self.checkpoints.prune(self.best["step"], self.step)
        self.accelerator.wait_for_everyone()
        if self.progress:
            print(plan(self))

    def _restore(self, step: int) -> None:
        state = self.checkpoints.state(step)
        refuse_another_run(self.out, state, self._identity())
        self.checkpoints.load(step, self._saved_networks(), self.optimizers)
        self.step, self.seconds, self.best = step, state["seconds"], state["best"]

    def _identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that it goes on from, as JSON."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "data": self.bank.fingerprint,
            "photos": self.bank.photos,
            "validation": self._validation_photos,
            "judges": self._judges,
        }

    def _saved_networks(self) -> dict[str, nn.Module]:
        extra = {"averaged": self.averaged} if self.averaged is not None else {}
        return {**self.networks, **extra}

    def _save(self) -> None:
        if self.out is None:
            return
        if self.main:
            state = {**self._identity(), "seconds": self.seconds, "best": self.best}
            with self.writing(f"the checkpoint of step {self.step}"):
                self.checkpoints.save(self.step, self._saved_networks(), self.optimizers, state)
                self.checkpoints.prune(self.best["step"], self.step)
        self.accelerator.wait_for_everyone()

    def best_model(self) -> nn.Module:
        """The result (averaged, if the recipe says so) on the CPU: the best checkpoint's, or the last where the recipe keeps that."""
        network = self.networks[self.result]
        if self.recipe.keep == "last":
            last = next((row[self.quality] for row in reversed(self.history.rows) if self.quality in row), None)
            self.best = {self.quality: last, "step": self.step, "waited": 0}
        elif self.out is not None and self.best["step"] in self.checkpoints.steps():
            if self.checkpoints.intact(self.best["step"]):
                self.checkpoints.load(self.best["step"], self._saved_networks(), {})
            elif self.main:
                print(f"the best checkpoint (step {self.best['step']}) is damaged: the result is that of step {self.step}")
                self.best = {self.quality: None, "step": None, "waited": 0}
        if self.averaged is not None:
            network.load_state_dict(self.averaged.module.state_dict())
        network.requires_grad_(True)  # a run may have ended in a phase that trains a part
        return network.to("cpu", memory_format=torch.contiguous_format).eval()

    def release(self) -> None:
        """Give the folder free for others."""
        if self._folder is not None:
            self._folder.release()


def _precision(wanted: str, device: torch.device) -> str:
    """bf16 where the hardware multiplies it: GPUs from compute capability 8, CPUs with AMX."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return "bf16"
    if device.type == "cpu" and machine.cpu_has_fast_bf16():
        return "bf16"
    return "float32"
