"""Names of ATen operators, grouped by what they do."""

from __future__ import annotations

POINTWISE = frozenset(
    """
    abs acos acosh add addcdiv addcmul alias angle asin asinh atan atan2 atanh bernoulli bitwise_and
    bitwise_not bitwise_or bitwise_xor cauchy ceil celu clamp clamp_max clamp_min clone contiguous
    copy copysign cos cosh deg2rad detach digamma div elu empty_like eq erf erfc erfinv exp exp2
    expm1 exponential fake_quantize_per_tensor_affine_cachemask fill
    floor floor_divide fmax fmin fmod frac full_like ge gelu geometric gt
    hardshrink hardsigmoid hardswish hardtanh heaviside hypot isfinite isinf isnan i0 le leaky_relu
    lerp lgamma lift_fresh lift_fresh_copy log log10 log1p log2 log_normal log_sigmoid_forward
    logaddexp logical_and logical_not logical_or logical_xor logit lt masked_fill maximum minimum
    mish mul nan_to_num native_dropout ne neg normal ones_like polar pow _prelu_kernel rad2deg
    rand_like randint_like randn_like random real reciprocal relu relu6 remainder round
    rrelu_with_noise rsqrt rsub selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink
    special_expit special_erf special_ndtr sqrt square sub tan tanh threshold _to_copy trunc uniform
    view_dtype where xlogy zero zeros_like __and__ __or__ __xor__
    """.split()
)


RAMPS = frozenset(["arange", "linspace", "logspace"])


FACTORIES = frozenset(
    """
    arange empty empty_strided eye full linspace logspace new_empty new_empty_strided new_full
    new_ones new_zeros ones rand randint randn randperm scalar_tensor zeros
    """.split()
)


REDUCTIONS = frozenset(
    """
    all amax amin aminmax any argmax argmin count_nonzero linalg_vector_norm logsumexp max mean
    median min nanmean nanmedian nansum norm prod std std_mean sum var var_mean
    """.split()
)


LOSSES = frozenset(
    """
    binary_cross_entropy binary_cross_entropy_with_logits huber_loss mse_loss smooth_l1_loss
    soft_margin_loss
    """.split()
)


WINDOWS: dict[int, str] = {
    1: """
    max_pool1d_with_indices avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_linear1d
    upsample_nearest1d _upsample_nearest_exact1d reflection_pad1d replication_pad1d
    """,
    2: """
    max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d
    upsample_bicubic2d upsample_bilinear2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    upsample_nearest2d _upsample_nearest_exact2d reflection_pad2d replication_pad2d
    fractional_max_pool2d
    """,
    3: """
    max_pool3d_with_indices avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d upsample_trilinear3d
    upsample_nearest3d reflection_pad3d replication_pad3d
    """,
}


BATCH_NORMS = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    miopen_batch_norm _batch_norm_with_update _batch_norm_no_update
    """.split()


# Reshapes do not move data; their memory is counted with the tensor they came from.
RESHAPES = frozenset(
    """
    view _unsafe_view reshape _reshape_alias expand unsqueeze squeeze alias detach lift_fresh lift_fresh_copy t
    """.split()
)


# Other operators whose results share memory with their input: a write into one changes the other (`x[:, :k] = y`).
VIEWS = frozenset("slice select split split_with_sizes unbind permute transpose narrow diagonal unfold".split())


NORMS = frozenset([*BATCH_NORMS, "native_layer_norm", "native_group_norm", "_fused_rms_norm"])
