"""Splits sequences into tiles, and locates their steps in these.

N sequences, n in a tile, L steps, D input features, H cells, P moments.
"""

import tensorflow as tf


class _Rows:
  """Selects the real ones of some rows.

  If no shape may depend on the data (`dense`), all rows are kept and masked.

  Attributes:
    numbers: indices of the rows that are kept, ascending.
  """

  def __init__(self, real, dense):
    self._real = real if dense else None
    self._all = tf.size(real)
    self.numbers = (
      tf.range(self._all) if dense else tf.cast(tf.where(real)[:, 0], tf.int32)
    )

  def gather(self, values):
    """Returns the kept ones of all rows."""
    if self._real is None:
      return tf.gather(values, self.numbers)
    mask = tf.reshape(self._real, [-1] + [1] * (len(values.shape) - 1))
    return tf.where(mask, values, 0)

  def scatter(self, values):
    """Returns all rows, given the kept ones; zeros elsewhere."""
    if self._real is not None:
      return self.gather(values)
    shape = tf.concat([[self._all], tf.shape(values)[1:]], 0)
    return tf.scatter_nd(self.numbers[:, None], values, shape)


class Tiles:
  """Splits the sequences with at least one step into tiles of equal size.

  Attributes:
    steps: L.
    count: number of tiles.
    dense: whether one tile holds all sequences, including empty ones.
    known_rows: number of sequences per tile if known statically, else None.
  """

  def __init__(self, x, lengths, tile, prepare):
    """Initializes the tiles; arguments as those of lstm.final_states()."""
    self.steps = x.shape[1]
    self.dense = tile is None
    self.known_rows = x.shape[0] if self.dense else None
    self._prepare = prepare
    self._frames = tf.reshape(x, [-1, x.shape[2]])
    self._rows = _Rows(lengths > 0, self.dense)
    if self.dense:
      self._lengths = tf.maximum(lengths, 1)
      self._num_rows = self._size = tf.size(lengths)
      self.count = 1
    else:
      self._lengths = self._rows.gather(lengths)
      self._num_rows = tf.size(self._lengths)
      # At least one, even if empty, so that no case is special.
      self.count = tf.maximum(-(-self._num_rows // tile), 1)
      self._size = -(-self._num_rows // self.count)

  def slice(self, rows, k):
    """Returns tile k of values per computed sequence."""
    return rows if self.dense else rows[k * self._size : (k + 1) * self._size]

  def lengths(self, k):
    """Returns the lengths of the sequences of tile k, int32 [n]."""
    return self.slice(self._lengths, k)

  def inputs(self, k):
    """Returns the inputs of tile k, time-major [L, n, D]."""
    steps = tf.range(self.steps)[:, None]
    x = tf.gather(
      self._frames, self.slice(self._rows.numbers, k)[None] * self.steps + steps
    )
    return self._prepare(x, steps < self.lengths(k)) if self._prepare else x

  def start(self, k):
    """Returns the number of steps in all tiles before tile k."""
    return k * self.steps * self._size

  def places(self, sequences, steps):
    """Returns indices, counted as in start(), of steps of computed sequences."""
    if not self.dense:
      sequences = tf.searchsorted(self._rows.numbers, sequences)
    before = sequences // self._size * self._size
    # The last tile may be smaller.
    rows = tf.minimum(self._size, self._num_rows - before)
    return before * self.steps + steps * rows + sequences - before

  def concat(self, array):
    """Concatenates what the tiles wrote to an array."""
    return array.read(0) if self.dense else array.concat()

  def gather(self, values):
    """Returns values of the computed sequences, given those of all N."""
    return self._rows.gather(values)

  def scatter(self, values):
    """Returns values of all N sequences, given the computed ones; zeros elsewhere."""
    return self._rows.scatter(values)


class Moments:
  """Steps of sequences after which states are returned.

  Attributes:
    known_rows: number of moments per tile if known statically, else None.
  """

  def __init__(self, tiles, lengths, moments):
    """Locates the moments among the steps of all tiles.

    Args:
      tiles: the tiles of the sequences.
      lengths: int32 [N].
      moments: int32 [P, 2], pairs of sequence and step.
    """
    sequences, steps = tf.unstack(moments, axis=1)
    self.known_rows = moments.shape[0] if tiles.dense else None
    self._tiles = tiles
    self._rows = _Rows(steps < tf.gather(lengths, sequences), tiles.dense)
    self._places = tiles.places(self._rows.gather(sequences), self._rows.gather(steps))
    if not tiles.dense:  # Tile by tile.
      order = tf.argsort(self._places)
      self._places = tf.gather(self._places, order)
      self._rows.numbers = tf.gather(self._rows.numbers, order)

  def gather(self, values):
    """Returns values of the real moments, by tile, given those of all P."""
    return self._rows.gather(values)

  def scatter(self, values):
    """Returns values of all P moments, given gather()'s; zeros elsewhere."""
    return self._rows.scatter(values)

  def pick(self, steps, k):
    """Returns the moments among the steps of tile k, [L, n, H]."""
    return tf.gather(flat(steps), self._of_tile(self._places, k) - self._tiles.start(k))

  def spread(self, values, k):
    """Returns the steps of tile k, [L, n, H], given gather()'s; zeros elsewhere."""
    steps, rows = self._tiles.steps, tf.size(self._tiles.lengths(k))
    places = self._of_tile(self._places, k) - self._tiles.start(k)
    return unflat(
      tf.scatter_nd(
        places[:, None], self._of_tile(values, k), [steps * rows, values.shape[1]]
      ),
      steps,
    )

  def _of_tile(self, values, k):
    if self._tiles.dense:
      return values
    start, end = tf.unstack(
      tf.searchsorted(self._places, [self._tiles.start(k), self._tiles.start(k + 1)])
    )
    return values[start:end]


def flat(x) -> tf.Tensor:
  """Reshapes to [-1, size of the last axis]."""
  return tf.reshape(x, [-1, x.shape[-1]])


def unflat(x, steps) -> tf.Tensor:
  """Reshapes [L * n, H] to [L, n, H]."""
  return tf.reshape(x, [steps, -1, x.shape[1]])
