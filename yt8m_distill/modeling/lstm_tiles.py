"""Sequences in tiles: those that run, and where their steps stand.

N sequences, n in a tile, L steps, D input features, H cells, P moments.
"""

import tensorflow as tf


class _Rows:
  """Those of some rows that are real.

  As a mask over all of them where no shape may depend on the data (`dense`).

  Attributes:
    numbers: which of all rows are kept, ascending.
  """

  def __init__(self, real, dense):
    self._real = real if dense else None
    self._all = tf.size(real)
    self.numbers = (
      tf.range(self._all) if dense else tf.cast(tf.where(real)[:, 0], tf.int32)
    )

  def gather(self, values):
    """From all rows to those kept."""
    if self._real is None:
      return tf.gather(values, self.numbers)
    mask = tf.reshape(self._real, [-1] + [1] * (len(values.shape) - 1))
    return tf.where(mask, values, 0)

  def scatter(self, values):
    """From those kept to all, zeros elsewhere."""
    if self._real is not None:
      return self.gather(values)
    shape = tf.concat([[self._all], tf.shape(values)[1:]], 0)
    return tf.scatter_nd(self.numbers[:, None], values, shape)


class Tiles:
  """Splits the sequences with at least one step into tiles of equal size.

  Attributes:
    steps: L.
    count: tiles.
    dense: one tile holds all sequences, those of length 0 too.
    known_rows: how many sequences a tile holds, where that is known.
  """

  def __init__(self, x, lengths, tile, prepare):
    """Initializes the tiles; arguments as of lstm.final_states()."""
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
      # At least one, if of no rows: nothing then has to be special.
      self.count = tf.maximum(-(-self._num_rows // tile), 1)
      self._size = -(-self._num_rows // self.count)

  def slice(self, rows, k):
    """Tile k of values per running sequence."""
    return rows if self.dense else rows[k * self._size : (k + 1) * self._size]

  def lengths(self, k):
    """Lengths of the sequences of tile k, int32 [n]."""
    return self.slice(self._lengths, k)

  def inputs(self, k):
    """Inputs of tile k, time-major [L, n, D]."""
    steps = tf.range(self.steps)[:, None]
    x = tf.gather(
      self._frames, self.slice(self._rows.numbers, k)[None] * self.steps + steps
    )
    return self._prepare(x, steps < self.lengths(k)) if self._prepare else x

  def start(self, k):
    """How many rows [L * n] the steps of the tiles before tile k have."""
    return k * self.steps * self._size

  def places(self, sequences, steps):
    """Rows, counted as start() does, of steps of running sequences."""
    if not self.dense:
      sequences = tf.searchsorted(self._rows.numbers, sequences)
    before = sequences // self._size * self._size
    # The last tile may be smaller.
    rows = tf.minimum(self._size, self._num_rows - before)
    return before * self.steps + steps * rows + sequences - before

  def concat(self, array):
    """Joins what the tiles wrote."""
    return array.read(0) if self.dense else array.concat()

  def gather(self, values):
    """From all N sequences to those that run."""
    return self._rows.gather(values)

  def scatter(self, values):
    """From those that run to all N, zeros elsewhere."""
    return self._rows.scatter(values)


class Moments:
  """Some steps of some sequences, of which the states are wanted.

  Attributes:
    known_rows: how many a tile holds, where that is known.
  """

  def __init__(self, tiles, lengths, moments):
    """Finds them among the steps of all tiles.

    Args:
      tiles: of the sequences.
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
    """From all P to those that are real, tile by tile."""
    return self._rows.gather(values)

  def scatter(self, values):
    """From gather() to all P, zeros elsewhere."""
    return self._rows.scatter(values)

  def pick(self, steps, k):
    """From the steps of tile k, [L, n, H], those wanted of it."""
    return tf.gather(flat(steps), self._of_tile(self._places, k) - self._tiles.start(k))

  def spread(self, values, k):
    """From gather() to the steps of tile k, [L, n, H], zeros elsewhere."""
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
  """Joins all axes but the last."""
  return tf.reshape(x, [-1, x.shape[-1]])


def unflat(x, steps) -> tf.Tensor:
  """From [L * n, H] to [L, n, H]."""
  return tf.reshape(x, [steps, -1, x.shape[1]])
