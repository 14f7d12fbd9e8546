"""Runs functions on a Ray cluster, whose nodes share storage.

Ray decides where and when a function runs, and runs it again if its node or process
dies. This module adds what the commands need: errors of one line that name the node,
and checks that all nodes run the same code in the same folder.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import functools
import logging
import math
import os
import pathlib
import socket
import threading
from typing import Any
from typing import NamedTuple
import zlib

from absl import flags
import tensorflow as tf

from yt8m_distill.utils import cli
from yt8m_distill.utils import files

_TIMEOUT = 20.0  # seconds that a cluster may take to answer, and tasks to stop
_START = (
  'Start Ray on this machine (ray start), and name HOST:PORT of the head node, or auto.'
)
_PACKAGE = pathlib.Path(__file__).resolve().parent.parent


def define_flags():
  """Defines the flag of all commands that can use a cluster."""
  flags.DEFINE_string(
    'ray_address',
    None,
    'Work on the Ray cluster at HOST:PORT, or on that of this machine (auto); see '
    'experiments/cluster/README.md. Default: on this machine, without Ray.',
  )


class _Setup(NamedTuple):
  """What a node must share with the process that sends it work.

  Attributes:
    versions: see `_versions`.
    folder: current folder, from which relative paths start.
    modules: modules of other projects to import.
  """

  versions: str
  folder: str
  modules: Sequence[str]


class Died(ChildProcessError):
  """Nodes or processes died, each time that a function ran."""


class Executor(futures.Executor):
  """Runs functions on a Ray cluster; they and their arguments must be picklable.

  Errors that a command reports arrive as ValueErrors that begin with the node. A
  function whose node or process died runs again, on another node if need be; after the
  fourth time it raises Died.

  Attributes:
    num_cpus: CPUs reserved for each function.
  """

  def __init__(self, address: str, workers: int | None = None, gpus: bool = True):
    """Connects to the cluster, unless this process is connected to one.

    Args:
      address: HOST:PORT of the cluster; 'auto' for the one that this machine is in.
      workers: functions that run at the same time on each node and share it equally;
        by default one per CPU.
      gpus: whether they share its GPUs too. Otherwise, or without `workers`, they see
        none.

    Raises:
      ImportError: Ray is not installed.
      ValueError: there is no such cluster, or none of its nodes has a CPU.
    """
    ray, self._owns_connection = _connect(address)
    self._ray = ray
    self._refs: list[Any] = []
    nodes = [node['Resources'] for node in self._ray.nodes() if node['Alive']]
    self.num_cpus = _share(nodes, 'CPU', workers) if workers else 1
    self._num_gpus = _share(nodes, 'GPU', workers) if workers and gpus else 0
    environment = {
      k: v for k, v in os.environ.items() if k.startswith(('TF_', 'YT8M_'))
    }
    if self._num_gpus:
      environment.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # Some share one.
    else:
      environment['CUDA_VISIBLE_DEVICES'] = '-1'
    self._call = self._ray.remote(
      num_cpus=self.num_cpus,
      num_gpus=self._num_gpus,
      max_calls=0,  # Workers keep the networks that they have read, also with GPUs.
      runtime_env={'env_vars': environment},
    )(_call)
    setup = _Setup(_versions(), os.getcwd(), flags.FLAGS['import'].value)
    self._setup = self._ray.put(setup)
    self._put = functools.cache(lambda f: ray.put(ray.cloudpickle.dumps(f)))
    self.slots()

  def submit(self, function: Callable[..., Any], /, *args, **kwargs) -> futures.Future:
    """Runs a function on a node. It is sent once, however often it is submitted."""
    ref = self._call.remote(self._setup, self._put(function), *args, **kwargs)
    self._refs.append(ref)
    future: futures.Future = futures.Future()

    def finish(done: futures.Future):
      try:
        future.set_result(done.result())
      except BaseException as error:
        future.set_exception(_explained(error))

    ref.future().add_done_callback(finish)
    return future

  def slots(self) -> int:
    """Returns how many functions can run at the same time.

    Raises:
      Died: none at all.
    """
    nodes = (node['Resources'] for node in self._ray.nodes() if node['Alive'])
    if slots := sum(map(self._slots_of, nodes)):
      return slots
    raise Died(
      f'No node of the Ray cluster has {self.num_cpus} CPUs and {self._num_gpus} GPUs: '
      'start nodes, and repeat the command to continue. Finished work is kept.'
    )

  def _slots_of(self, resources: Mapping[str, float]) -> int:
    needed = {'CPU': self.num_cpus, 'GPU': self._num_gpus}
    return min(
      int(resources.get(name, 0) / amount) for name, amount in needed.items() if amount
    )

  def shutdown(self, wait: bool = True, *, cancel_futures: bool = False):
    """See futures.Executor; if `cancel_futures`, also stops what already runs."""
    if cancel_futures:
      for ref in self._refs:
        self._ray.cancel(ref)
    if wait and self._refs:
      timeout = _TIMEOUT if cancel_futures else None
      self._ray.wait(self._refs, num_returns=len(self._refs), timeout=timeout)
    self._refs.clear()
    if self._owns_connection:
      self._ray.shutdown()


def check_folder(folder: str):
  """Raises a ValueError if a local output folder does not exist on this node."""
  if not files.is_remote(folder) and not os.path.isdir(folder or '.'):
    raise ValueError(
      f'{folder} does not exist there: name an output folder on storage that all nodes '
      'share, under the same path.'
    )


def _connect(address: str) -> tuple[Any, bool]:
  """Returns the module ray, and whether this call has connected it to the cluster."""
  try:
    import ray
  except ImportError as error:
    raise ImportError(
      f'--ray_address is {address}, but Ray cannot be imported ({error}): install the '
      'extra cluster on all nodes, in a checkout: pip install -c constraints/tf216.txt '
      '".[cluster]".'
    ) from error
  if ray.is_initialized():
    return ray, False
  try:
    if address != 'auto':  # At once, where Ray would try again for minutes.
      host, _, port = address.rpartition(':')
      socket.create_connection((host, int(port)), _TIMEOUT).close()
    connecting: futures.Future = futures.Future()

    def connect():
      try:
        connecting.set_result(ray.init(address, logging_level=logging.ERROR))
      except Exception as error:
        connecting.set_exception(error)

    # No signal reaches Ray while it waits for what is left of a cluster.
    threading.Thread(target=connect, daemon=True).start()
    connecting.result(_TIMEOUT)
  except futures.TimeoutError as error:
    raise ValueError(
      f'--ray_address is {address}: no cluster answers in {_TIMEOUT:.0f} s. {_START}'
    ) from error
  except (OSError, OverflowError, RuntimeError, ValueError) as error:
    raise ValueError(
      f'--ray_address is {address}: {cli.message(error)}. {_START}'
    ) from error
  return ray, True


def _share(nodes: Sequence[dict[str, float]], name: str, workers: int) -> float:
  """Returns how much of a resource of the smallest node each of its workers gets."""
  share = min((node[name] for node in nodes if node.get(name)), default=0) / workers
  # Ray takes whole numbers, or fractions of 1 in steps of 0.0001.
  return int(share) if share >= 1 else math.floor(share * 10_000) / 10_000


def _call(setup: _Setup, function: bytes, *args, **kwargs):
  """Calls a function on a node, with which other functions may follow."""
  import ray

  try:
    if setup.versions != _versions():
      raise ValueError(
        f'it has {_versions()}, but the command {setup.versions}: install the same on '
        'all nodes.'
      )
    if os.path.isdir(setup.folder):  # Otherwise all paths must be absolute.
      os.chdir(setup.folder)
    cli.import_modules(setup.modules)
    return ray.cloudpickle.loads(function)(*args, **kwargs)
  except cli.REPORTED as error:
    node = ray.util.get_node_ip_address()
    raise ValueError(f'Node {node}: {cli.message(error)}') from error


@functools.cache
def _versions() -> str:
  """Describes the code that this process runs."""
  code = 0
  for path in sorted(_PACKAGE.rglob('*.py')):
    code = zlib.crc32(path.read_bytes(), code)
  return f'TensorFlow {tf.__version__} and yt8m_distill with CRC {code:08x}'


def _explained(error: BaseException) -> BaseException:
  """Returns the error that a function raised, or one about its node."""
  import ray

  if isinstance(error, ray.exceptions.RayTaskError):
    cause = error.cause
    if 'failed to import' in str(cause):  # `_call` itself.
      cause = ValueError(
        'A node of the Ray cluster cannot import yt8m_distill: install it on all nodes.'
      )
    cause.__cause__ = error  # Shows where it was raised.
    return cause
  if isinstance(error, ray.exceptions.RayError):
    return Died(cli.message(error))
  return error
