"""NeXtVLAD (Lin, Xiao, Fan: arXiv 1811.05014).

Follows the paper and the settings of its released code. A frame is widened and
split into groups. Each group is a vector with a sigmoid attention and a softmax
assignment, both computed from the whole frame. Descriptors are batch-normalized,
dropout is applied, and a linear layer follows. The squeeze-and-excitation gate
and the classifier belong to the head.

Deviations: padding is left out of descriptors and statistics, and videos without
frames out of the descriptors' statistics; moving averages have tf_keras' momentum
0.99 (there 0.999). Frames arrive scaled to L2 norm 1. If whitening is undone, they
are scaled again afterwards. A frame's original length does not matter, so this
equals undoing the whitening first, except for the offset of 4 / 512 in dequantized
values, which the released code subtracts.

B videos, T frames, D features of a frame, E expansion, G groups, K clusters, R
representation.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from yt8m_distill.configs import fits
from yt8m_distill.modeling import masked_batch_norm
from yt8m_distill.modeling.backbones import base
from yt8m_distill.modeling.backbones import vlad
from yt8m_distill.utils import per_video_random

# The releases' features were divided by sqrt(eigenvalue + this).
_WHITENING_EPSILON = 1e-4


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class NextVladPool(tf_keras.layers.Layer):
  """From frames [B, T, D] and real, bool [B, T], to [B, K * E * D / G]."""

  def __init__(self, clusters: int, groups: int, expansion: int, **kwargs):
    """Initializes the layer.

    Args:
      clusters: K.
      groups: G.
      expansion: E.
      **kwargs: arguments of a Keras layer.
    """
    super().__init__(**kwargs)
    self._clusters = clusters
    self._groups = groups
    self._expansion = expansion
    self.assign_norm = masked_batch_norm.MaskedBatchNormalization(name='assign_norm')
    self.norm = masked_batch_norm.MaskedBatchNormalization(name='norm')

  def build(self, input_shape):
    """Creates the variables for frames [B, T, D].

    Raises:
      ValueError: G does not divide E * D.
    """
    width = self._expansion * input_shape[-1]
    fits.check_groups(self._groups, input_shape[-1], self._expansion)
    self._vector = width // self._groups
    self.output_size = self._clusters * self._vector
    vectors = self._groups * self._clusters
    self.expand = tf_keras.layers.Dense(width, name='expand')
    self.attend = tf_keras.layers.Dense(self._groups, name='attend')
    self.assign = tf_keras.layers.Dense(
      vectors, use_bias=False, name='assign', kernel_initializer=vlad.normal(1 / width)
    )
    for layer, size in (
      (self.expand, input_shape[-1]),
      (self.attend, width),
      (self.assign, width),
      (self.assign_norm, vectors),
    ):
      with tf.name_scope(layer.name):
        layer.build([None, None, size])
    with tf.name_scope(self.norm.name):
      self.norm.build([None, self.output_size])
    self.centres = self.add_weight(
      name='centres',
      shape=[self._clusters, self._vector],
      initializer=vlad.normal(1 / width),
      experimental_autocast=False,
    )
    super().build(input_shape)

  def call(self, frames, real, training=False):
    """Returns descriptors, float32; `real` is False for padding."""
    vectors = frames.shape[1] * self._groups
    x = self.expand(frames)
    attention = tf.sigmoid(tf.cast(self.attend(x), tf.float32))
    attention *= tf.cast(real, tf.float32)[..., None]
    logits = self.assign_norm(self.assign(x), real, training=training)
    assignment = tf.nn.softmax(
      tf.reshape(logits, [-1, vectors, self._clusters])
    ) * tf.reshape(attention, [-1, vectors, 1])
    descriptor = vlad.aggregate(
      assignment, tf.reshape(x, [-1, vectors, self._vector]), self.centres
    )
    return self.norm(
      tf.reshape(descriptor, [-1, self.output_size]),
      tf.reduce_any(real, axis=1),
      training=training,
    )

  def flops(self, frames: int) -> int:
    """Returns the FLOPs of `frames` frames: 2 per multiply-add."""
    dense = (self.expand, self.attend, self.assign)
    return (
      2
      * frames
      * (
        sum(int(layer.kernel.shape.num_elements()) for layer in dense)
        + self._groups * self.output_size
      )
    )

  def get_config(self):
    """Returns the arguments of __init__."""
    return {
      **super().get_config(),
      'clusters': self._clusters,
      'groups': self._groups,
      'expansion': self._expansion,
    }


@base.register('nextvlad')
class NextVlad(vlad.VladBackbone):
  """NeXtVLAD over {'frames': [B, T, D], 'num_frames', 'seed': int32 [B]}.

  Frames are normalized, and zero after a video's last frame. Only dropout in
  training needs the seed.

  Returns {'representation': float32 [B, R]}.
  """

  def __init__(
    self,
    input_specs,
    clusters: int = 128,
    groups: int = 8,
    expansion: int = 2,
    hidden: int = 2048,
    dropout: float = 0.5,
    eigenvalues: Sequence[float] | None = None,
    **kwargs,
  ):
    """Initializes and builds the backbone.

    Args:
      input_specs: see Backbone.
      clusters: K of the first feature; each further feature has half as many.
      groups: G, likewise.
      expansion: E.
      hidden: R.
      dropout: fraction of the descriptors' values that training drops.
      eigenvalues: of the PCA that produced the first feature, one per value, to
        undo its whitening.
      **kwargs: arguments of a Backbone.

    Raises:
      ValueError: `groups` does not divide the widened features, or there are
        several features, but fewer than 2 clusters or groups.
    """
    fits.check_shares(groups, len(input_specs.get('features', [0])), 'groups')
    super().__init__(
      input_specs,
      clusters,
      hidden,
      lambda share, name: NextVladPool(
        clusters // share, groups // share, expansion, name=name
      ),
      use_bias=False,
      options={
        'groups': groups,
        'expansion': expansion,
        'dropout': dropout,
        'eigenvalues': eigenvalues,
      },
      **kwargs,
    )
    self._dropout = dropout
    self._scale = None
    if eigenvalues is not None:
      # Further features were not whitened.
      rest = input_specs['frames'].shape[-1] - len(eigenvalues)
      self._scale = np.concatenate(
        [np.sqrt(np.asarray(eigenvalues) + _WHITENING_EPSILON), np.ones(rest)]
      ).astype(np.float32)
    self.norm = masked_batch_norm.MaskedBatchNormalization(name='norm')
    with tf.name_scope('norm'):
      self.norm.build([None, hidden])
    self.built = True

  @classmethod
  def create(cls, input_specs, kernel_regularizer=None, eigenvalues='', **fields):
    """Builds the backbone; see Backbone.

    Args:
      input_specs: see Backbone.
      kernel_regularizer: of the linear layer.
      eigenvalues: path of their file, '' for none. It is read whenever the
        network is built from its configuration; an export holds its values.
      **fields: other fields of `configs.model.NextVlad`.

    Returns:
      The backbone, with its variables.

    Raises:
      ValueError: see NextVlad and read_eigenvalues().
    """
    first = input_specs.get('features', [input_specs['frames']])[0]
    return cls(
      input_specs,
      kernel_regularizer=kernel_regularizer,
      eigenvalues=(
        read_eigenvalues(eigenvalues, first.shape[-1]) if eigenvalues else None
      ),
      **fields,
    )

  def call(self, inputs, training=False):
    """Returns the representation; see the class."""
    frames, num_frames = inputs['frames'], inputs['num_frames']
    if self._scale is not None:
      frames = tf.nn.l2_normalize(tf.cast(frames, tf.float32) * self._scale, axis=-1)
    descriptor = self.describe(
      frames, tf.sequence_mask(num_frames, frames.shape[1]), training
    )
    if training and self._dropout:
      descriptor = per_video_random.dropout(
        descriptor,
        inputs.get('seed'),
        self._dropout,
        per_video_random.Salt.DESCRIPTOR_DROPOUT,
      )
    return {
      'representation': self.norm(
        self.projection(descriptor), num_frames > 0, training=training
      )
    }


def read_eigenvalues(path: str, size: int) -> list[float]:
  """Reads eigenvalues of a PCA, the largest first, as the releases hold them.

  Args:
    path: .npy file of an array [n] or [n, 1].
    size: how many are needed.

  Returns:
    The first `size` of them.

  Raises:
    ValueError: there is no such file, or it holds something else.
  """
  remedy = "give the eigenvals.npy of the releases' yt8m_pca.tgz."
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      values = np.load(file)
  except tf.errors.OpError as error:
    raise ValueError(
      f'eigenvalues is {path!r}, which cannot be read ({error.message}): {remedy}'
    ) from error
  except (ValueError, EOFError) as error:
    raise ValueError(
      f'eigenvalues is {path!r}, which is no .npy file: {remedy}'
    ) from error
  if not isinstance(values, np.ndarray):
    raise ValueError(f'eigenvalues is {path!r}, which holds several arrays: {remedy}')
  if values.size < size or values.size != len(values):
    raise ValueError(
      f'eigenvalues is {path!r}, which holds an array {list(values.shape)}, '
      f'where the first feature has {size} values: {remedy}'
    )
  values = values.reshape([-1])[:size]
  if not np.all(values >= 0):
    raise ValueError(
      f'eigenvalues is {path!r}, which holds negative numbers or NaN: {remedy}'
    )
  return values.tolist()
