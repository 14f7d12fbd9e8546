r"""Times the same networks and training step in PyTorch, as model.py does.

Hierarchical LSTM with PyTorch's LSTM at both levels (cuDNN on a GPU), mixture of
experts, L_CE, L_REP and L_PRED, Adam, gradients clipped tensor by tensor, on one
device. PyTorch's LSTM has a second bias, initially zero; otherwise the parameters
are those of `yt8m_distill`. All videos have 300 frames, so sequences need no
packing. From the repository's root, in an environment with PyTorch:

  python -m experiments.benchmarks.peer --cells=1024 --batch=256 \
    --precision=tf32 --precision=bfloat16 --precision=float16

To compare, on the same idle machine and in the project's environment:

  python -m experiments.benchmarks.model --cells=1024 --batch=256
"""

import argparse
import contextlib
import statistics
import time

import torch
from torch import nn

_FEATURES, _FRAMES, _EPSILON = 1152, 300, 1e-5


class _Network(nn.Module):
  """A network that sees every N-th frame, in chunks."""

  def __init__(self, cells, classes, chunks, every_n, mixtures=2):
    super().__init__()
    self.chunks, self.every_n, self.mixtures = chunks, every_n, mixtures
    states = 4 * cells
    self.lower = nn.LSTM(_FEATURES, cells, 2, batch_first=True)
    self.upper = nn.LSTM(states, cells, 2, batch_first=True)
    self.gates = nn.Linear(states, classes * (mixtures + 1), bias=False)
    self.experts = nn.Linear(states, classes * mixtures)

  def forward(self, frames):
    """Returns representation [B, R] and predictions [B, V] of uint8 [B, T, D]."""
    x = frames[:, :: self.every_n].float() * (4 / 255) + (4 / 512 - 2)
    batch = len(x)
    states = _last(self.lower, x.reshape(batch * self.chunks, -1, _FEATURES))
    states = _last(self.upper, states.reshape(batch, self.chunks, -1))
    gates = self.gates(states).reshape(batch, -1, self.mixtures + 1)
    experts = self.experts(states).reshape(batch, -1, self.mixtures)
    gates = gates.float().softmax(-1)[..., : self.mixtures]
    return states.float(), (gates * experts.float().sigmoid()).sum(-1)


def _last(stack, x):
  """Returns final states [B, c0 h0 c1 h1]."""
  h, c = stack(x)[1]
  return torch.stack([c, h], 1).permute(2, 0, 1, 3).flatten(1)


def _cross_entropy(labels, p):
  return -(labels * (p + _EPSILON).log() + (1 - labels) * (1 - p + _EPSILON).log()).sum(
    -1
  )


def _loss(labels, teacher, student):
  """Returns L_CE of both, L_REP and L_PRED with the defaults of `yt8m_distill`."""
  (rep_t, p_t), (rep_s, p_s) = teacher, student
  rep_t, q_t = rep_t.detach(), p_t.detach() / p_t.detach().sum(-1, True)
  q_s = p_s / p_s.sum(-1, True)
  return (
    _cross_entropy(labels, p_t)
    + _cross_entropy(labels, p_s)
    + 1e-3 * (rep_t - rep_s).square().sum(-1)
    + (q_t * (q_t.log() - q_s.log())).sum(-1)
  ).mean()


class _Cases:
  """The cases to time, in one precision."""

  def __init__(self, args, device, precision):
    torch.manual_seed(0)
    self._device, self._precision = device, precision

    def make(*shape):
      return _Network(args.cells, args.classes, *shape).to(device)

    self._teacher, self._student = make(20, 1), make(5, 10)
    self._frames = torch.randint(
      256, [args.batch, _FRAMES, _FEATURES], dtype=torch.uint8
    ).to(device)
    self._labels = (
      (torch.rand(args.batch, args.classes) < 3 / args.classes).float().to(device)
    )
    self._parameters = [*self._teacher.parameters(), *self._student.parameters()]
    self._adam = torch.optim.Adam(
      self._parameters, 1e-3, eps=1e-7, fused=device == 'cuda'
    )
    self._scaler = torch.amp.GradScaler(device, enabled=precision == 'float16')
    self.times: dict[str, list[float]] = {
      'teacher forward': [],
      'student forward': [],
      'train step': [],
    }

  def _cast(self):
    if self._precision in ('float32', 'tf32'):
      return contextlib.nullcontext()
    return torch.autocast(self._device, getattr(torch, self._precision))

  def _forward(self, network):
    with torch.no_grad(), self._cast():
      return network(self._frames)[1].sum()

  def _train_step(self):
    self._adam.zero_grad()
    with self._cast():
      teacher, student = self._teacher(self._frames), self._student(self._frames)
    loss = _loss(self._labels, teacher, student)
    self._scaler.scale(loss).backward()
    self._scaler.unscale_(self._adam)
    gradients = [p.grad for p in self._parameters]
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(
      gradients, [torch.clamp(1 / (norm + 1e-12), max=1) for norm in norms]
    )
    self._scaler.step(self._adam)
    self._scaler.update()
    return loss.detach()

  def run(self):
    """Runs every case once; keeps the seconds."""
    torch.backends.cuda.matmul.allow_tf32 = self._precision == 'tf32'
    torch.backends.cudnn.allow_tf32 = self._precision == 'tf32'
    for run, times in zip(
      (
        lambda: self._forward(self._teacher),
        lambda: self._forward(self._student),
        self._train_step,
      ),
      self.times.values(),
    ):
      start = time.perf_counter()
      float(run())  # Reading the number on the host waits for a GPU.
      times.append(time.perf_counter() - start)


def main():
  """Prints a row per precision and case."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
  parser.add_argument('--cells', type=int, default=1024, help='cells per LSTM layer')
  parser.add_argument('--batch', type=int, default=256, help='videos per step')
  parser.add_argument('--classes', type=int, default=4716, help='number of classes')
  parser.add_argument('--repeats', type=int, default=20, help='rounds')
  parser.add_argument(
    '--precision',
    action='append',
    choices=['float32', 'tf32', 'bfloat16', 'float16'],
    help='repeat the flag for several',
  )
  args = parser.parse_args()
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  if device == 'cpu' and 'float16' in (args.precision or []):
    parser.error(
      '--precision is float16: it needs a GPU, and PyTorch finds none. Leave it out.'
    )
  print(
    f'PyTorch {torch.__version__}, {device}, {args.cells} cells, '
    f'{args.classes} classes, batch {args.batch}, {args.repeats} rounds'
  )
  print(f'{"precision":<11}{"case":<17}{"best s":>9}{"median s":>10}{"videos/s":>10}')
  for precision in args.precision or ['float32']:
    cases = _Cases(args, device, precision)
    for _ in range(args.repeats + 2):
      cases.run()
    for name, times in cases.times.items():
      times = times[2:]  # The first rounds select kernels.
      print(
        f'{precision:<11}{name:<17}{min(times):>9.4f}'
        f'{statistics.median(times):>10.4f}'
        f'{args.batch / min(times):>10.1f}'
      )
    del cases


if __name__ == '__main__':
  main()
