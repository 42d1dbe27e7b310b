/* Made by pretrim. See kernels.h. Sources of the arithmetic, in github.com/tensorflow/tflite-micro and
 * github.com/google/gemmlowp, after which this was written:
 *
 *   scaled(), scaled_once()   tensorflow/lite/kernels/internal/common.cc, MultiplyByQuantizedMultiplier
 *   doubled_high_product()    gemmlowp fixedpoint/fixedpoint.h, SaturatingRoundingDoublingHighMul
 *   divided_by_power_of_two() gemmlowp fixedpoint/fixedpoint.h, RoundingDivideByPOT
 *   the kernels               tensorflow/lite/kernels/internal/reference/integer_ops/ and reference/reduce.h
 *   nn_resize()               tensorflow/lite/kernels/internal/reference/resize_bilinear.h, ResizeBilinearInteger
 *   nn_softmax()              tensorflow/lite/kernels/internal/reference/softmax.h, Softmax
 *   reciprocal()              gemmlowp fixedpoint/fixedpoint.h, one_over_one_plus_x_for_x_in_0_1
 *
 * Right shifts of negative numbers are taken to be arithmetic, as every compiler for Cortex-M, x86 and
 * RISC-V has them (C99 leaves it to the compiler).
 */
#include "kernels.h"

#include <stddef.h>
#include <string.h>
#ifdef __ARM_FEATURE_SIMD32
#include <arm_acle.h>
#endif

/* ---------------------------------------------------------------------------- fixed-point arithmetic */

/* The upper 32 bits of 2ab, rounded to nearest, where a and b are not both INT32_MIN: no caller has that, whose b is a
 * multiplier. gemmlowp nudges negative products the other way and then cuts off: the same numbers.
 */
static int32_t doubled_high_product(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}

/* x / 2^exponent, rounded to nearest, ties away from zero. */
static int32_t divided_by_power_of_two(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)((UINT32_C(1) << exponent) - 1);
    const int32_t remainder = x & mask;
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + (remainder > threshold ? 1 : 0);
}

/* x * multiplier * 2^(shift - 31), rounded twice, as TFLite rounds. */
static int32_t scaled(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    return divided_by_power_of_two(doubled_high_product((int32_t)((uint32_t)x << left), multiplier), right);
}

/* The same, rounded once. LiteRT's reference kernel of FULLY_CONNECTED does so; that of TensorFlow Lite for
 * Microcontrollers rounds twice there too, so that an output in a thousand or fewer differs by one step.
 */
static int32_t scaled_once(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t right = 31 - shift;
    return (int32_t)(((int64_t)x * multiplier + (INT64_C(1) << (right - 1))) >> right);
}

static int8_t clamped(int32_t x, const nn_range *range)
{
    if (x < range->minimum) {
        return (int8_t)range->minimum;
    }
    return (int8_t)(x > range->maximum ? range->maximum : x);
}

static int8_t stored(int32_t sum, int32_t multiplier, int32_t shift, const nn_range *range)
{
    return clamped(scaled(sum, multiplier, shift) + range->zero, range);
}

/* ------------------------------------------------------------------------------------------- windows */

/* The taps of a kernel that lie inside the input along one dimension: first <= k < end. */
typedef struct {
    int origin; /* where tap 0 lies; negative in the padding */
    int first, end;
} taps;

static taps taps_at(int output, int stride, int pad, int dilation, int kernel, int size)
{
    taps inside = {output * stride - pad, 0, kernel};
    while (inside.first < kernel && inside.origin + inside.first * dilation < 0) {
        inside.first++;
    }
    while (inside.end > inside.first && inside.origin + (inside.end - 1) * dilation >= size) {
        inside.end--;
    }
    return inside;
}

static taps rows_at(const nn_window *w, int y)
{
    return taps_at(y, w->stride_y, w->pad_top, w->dilation_y, w->kernel_height, w->input_height);
}

static taps columns_at(const nn_window *w, int x)
{
    return taps_at(x, w->stride_x, w->pad_left, w->dilation_x, w->kernel_width, w->input_width);
}

/* The channels of the input under tap (ky, kx). */
static const int8_t *pixel_at(const nn_window *w, const int8_t *input, taps rows, taps columns, int ky, int kx)
{
    const int y = rows.origin + ky * w->dilation_y;
    const int x = columns.origin + kx * w->dilation_x;
    return input + ((int32_t)y * w->input_width + x) * w->input_channels;
}

/* ---------------------------------------------------------------------------- layers with weights */

/* Outputs whose sums are computed together, so that each input is read once for all of them. */
#define AT_ONCE 4

static int32_t at_once(int32_t left)
{
    return left < AT_ONCE ? left : AT_ONCE;
}

/* Sums are unsigned, so that they wrap, as LiteRT's do: where the input's scale is tiny, a bias fills all 32 bits. */
static void start(uint32_t sums[AT_ONCE], const int32_t *bias, int32_t channel, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        sums[i] = bias != NULL ? (uint32_t)bias[channel + i] : 0;
    }
}

/* Scales sums to outputs, and returns where the next ones go. */
static int8_t *finish(int8_t *output, const uint32_t *sums, const int32_t *multiplier, const int8_t *shift,
                      const nn_range *range, int32_t count)
{
    const nn_range copy = *range; /* the compiler cannot know that no output lies on it */
    for (int32_t i = 0; i < count; i++) {
        *output++ = stored((int32_t)sums[i], multiplier[i], shift[i], &copy);
    }
    return output;
}

#ifdef __ARM_FEATURE_SIMD32

/* The first and the third of four bytes, and the second and the fourth, as 16 bits each. */
typedef struct {
    int16x2_t even, odd;
} bytes_by_two;

static bytes_by_two four_bytes(const int8_t *bytes)
{
    uint32_t four;
    memcpy(&four, bytes, sizeof four);
    const bytes_by_two split = {__sxtb16((int8x4_t)four), __sxtb16((int8x4_t)(four >> 8))};
    return split;
}

static int16x2_t twice(int value)
{
    return (int16x2_t)((uint16_t)value * UINT32_C(0x10001));
}

static bytes_by_two less(bytes_by_two values, int16x2_t by)
{
    const bytes_by_two rest = {__ssub16(values.even, by), __ssub16(values.odd, by)};
    return rest;
}

static int32_t add_four(int32_t sum, bytes_by_two values, bytes_by_two weights)
{
    return __smlad(values.odd, weights.odd, __smlad(values.even, weights.even, sum));
}

#endif

/* Adds to each sum the inputs, less their zero point, times the weights of a filter; filters lie `apart` bytes apart.
 * Where they are fewer than AT_ONCE, the last one is computed again instead.
 */
static void add_products(uint32_t sums[AT_ONCE], int32_t filters, const int8_t *input, int input_zero,
                         const int8_t *weights, int32_t apart, int32_t count)
{
    const int8_t *w0 = weights, *w1 = w0 + (filters > 1 ? apart : 0);
    const int8_t *w2 = w1 + (filters > 2 ? apart : 0), *w3 = w2 + (filters > 3 ? apart : 0);
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, i = 0;
#ifdef __ARM_FEATURE_SIMD32
    const int16x2_t zeros = twice(input_zero);
    for (; i <= count - 4; i += 4) {
        const bytes_by_two values = less(four_bytes(input + i), zeros);
        s0 = add_four(s0, values, four_bytes(w0 + i));
        s1 = add_four(s1, values, four_bytes(w1 + i));
        s2 = add_four(s2, values, four_bytes(w2 + i));
        s3 = add_four(s3, values, four_bytes(w3 + i));
    }
#endif
    for (; i < count; i++) {
        const int32_t value = input[i] - input_zero;
        s0 += value * w0[i];
        s1 += value * w1[i];
        s2 += value * w2[i];
        s3 += value * w3[i];
    }
    sums[0] += (uint32_t)s0;
    sums[1] += (uint32_t)s1;
    sums[2] += (uint32_t)s2;
    sums[3] += (uint32_t)s3;
}

void nn_conv_2d(const nn_convolution *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;
    const int depth = layer->group_channels;
    const int outputs_of_group = w->output_channels / (w->input_channels / depth);
    const int32_t filter_size = (int32_t)w->kernel_height * w->kernel_width * depth;
    /* The channels of neighbouring taps lie side by side, those of one group of several do not. */
    const int is_row = depth == w->input_channels && w->dilation_x == 1;

    for (int y = 0; y < w->output_height; y++) {
        const taps rows = rows_at(w, y);
        for (int x = 0; x < w->output_width; x++) {
            const taps columns = columns_at(w, x);
            const int run = is_row ? columns.end - columns.first : 1;
            for (int c = 0; c < w->output_channels;) {
                const int group = c / outputs_of_group;
                const int32_t filters = at_once((group + 1) * outputs_of_group - c);
                const int8_t *filter = layer->weights + c * filter_size;
                uint32_t sums[AT_ONCE] = {0};
                start(sums, layer->bias, c, filters);
                for (int ky = rows.first; ky < rows.end; ky++) {
                    for (int kx = columns.first; kx < columns.end; kx += run) {
                        const int8_t *pixel = pixel_at(w, input, rows, columns, ky, kx) + group * depth;
                        const int8_t *weights = filter + (ky * w->kernel_width + kx) * depth;
                        add_products(sums, filters, pixel, layer->input_zero, weights, filter_size, run * depth);
                    }
                }
                output = finish(output, sums, layer->multiplier + c, layer->shift + c, &layer->range, filters);
                c += filters;
            }
        }
    }
}

/* Adds to the sum of each of some output channels, at most AT_ONCE, its inputs under a window, less their zero point,
 * times their weights: from the first tap on that lies inside the input.
 */
static void add_window(uint32_t sums[AT_ONCE], int32_t channels, const nn_depthwise *layer, const int8_t *values,
                       const int8_t *weights, int32_t rows, int32_t columns)
{
    const nn_window *w = &layer->window;
    const int32_t value_step = w->dilation_x * w->input_channels, weight_step = w->output_channels;
    const int32_t value_row = (int32_t)w->dilation_y * w->input_width * w->input_channels - columns * value_step;
    const int32_t weight_row = (w->kernel_width - columns) * weight_step;
    const int32_t apart = layer->depth == 1, zero = layer->input_zero;
#ifdef __ARM_FEATURE_SIMD32
    if (channels == AT_ONCE) {
        const int16x2_t zeros = twice(zero);
        int32_t s0 = (int32_t)sums[0], s1 = (int32_t)sums[1], s2 = (int32_t)sums[2], s3 = (int32_t)sums[3];
        for (; rows > 0; rows--, values += value_row, weights += weight_row) {
            for (int32_t x = columns; x > 0; x--, values += value_step, weights += weight_step) {
                const bytes_by_two shared = {twice(*values), twice(*values)};
                const bytes_by_two value = less(apart ? four_bytes(values) : shared, zeros);
                const bytes_by_two weight = four_bytes(weights);
                s0 = __smlabb(value.even, weight.even, s0);
                s1 = __smlabb(value.odd, weight.odd, s1);
                s2 = __smlatt(value.even, weight.even, s2);
                s3 = __smlatt(value.odd, weight.odd, s3);
            }
        }
        sums[0] = (uint32_t)s0;
        sums[1] = (uint32_t)s1;
        sums[2] = (uint32_t)s2;
        sums[3] = (uint32_t)s3;
        return;
    }
#endif
    for (; rows > 0; rows--, values += value_row, weights += weight_row) {
        for (int32_t x = columns; x > 0; x--, values += value_step, weights += weight_step) {
            for (int32_t i = 0; i < channels; i++) {
                sums[i] += (uint32_t)((values[i * apart] - zero) * weights[i]);
            }
        }
    }
}

void nn_depthwise_conv_2d(const nn_depthwise *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;
    const int depth = layer->depth;

    for (int y = 0; y < w->output_height; y++) {
        const taps rows = rows_at(w, y);
        for (int x = 0; x < w->output_width; x++) {
            const taps columns = columns_at(w, x);
            const int8_t *pixel = pixel_at(w, input, rows, columns, rows.first, columns.first);
            const int8_t *tap = layer->weights + (rows.first * w->kernel_width + columns.first) * w->output_channels;
            for (int c = 0; c < w->output_channels;) {
                const int32_t channels = at_once(depth == 1 ? w->output_channels - c : depth - c % depth);
                uint32_t sums[AT_ONCE];
                start(sums, layer->bias, c, channels);
                add_window(sums, channels, layer, pixel + c / depth, tap + c, rows.end - rows.first,
                           columns.end - columns.first);
                output = finish(output, sums, layer->multiplier + c, layer->shift + c, &layer->range, channels);
                c += channels;
            }
        }
    }
}

/* Where the input lies that tap k of a transposed convolution spreads to an output, along one dimension; -1: nowhere. */
static int spread_from(int output, int pad, int k, int stride, int size)
{
    const int at = output + pad - k;
    return at >= 0 && at % stride == 0 && at / stride < size ? at / stride : -1;
}

void nn_transpose_conv(const nn_convolution *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;
    const int depth = w->input_channels;
    const int32_t filter_size = (int32_t)w->kernel_height * w->kernel_width * depth;

    for (int y = 0; y < w->output_height; y++) {
        for (int x = 0; x < w->output_width; x++) {
            for (int32_t c = 0; c < w->output_channels;) {
                const int32_t filters = at_once(w->output_channels - c);
                const int8_t *weights = layer->weights + c * filter_size;
                uint32_t sums[AT_ONCE] = {0};
                start(sums, layer->bias, c, filters);
                for (int ky = 0; ky < w->kernel_height; ky++) {
                    const int row = spread_from(y, w->pad_top, ky, w->stride_y, w->input_height);
                    for (int kx = 0; kx < w->kernel_width; kx++, weights += depth) {
                        const int column = spread_from(x, w->pad_left, kx, w->stride_x, w->input_width);
                        if (row >= 0 && column >= 0) {
                            const int8_t *pixel = input + ((int32_t)row * w->input_width + column) * depth;
                            add_products(sums, filters, pixel, layer->input_zero, weights, filter_size, depth);
                        }
                    }
                }
                output = finish(output, sums, layer->multiplier + c, layer->shift + c, &layer->range, filters);
                c += filters;
            }
        }
    }
}

void nn_fully_connected(const nn_dense *layer, const int8_t *input, int8_t *output)
{
    for (int32_t row = 0; row < layer->rows; row++) {
        for (int32_t c = 0; c < layer->outputs;) {
            const int32_t filters = at_once(layer->outputs - c);
            const int8_t *weights = layer->weights + c * layer->inputs;
            uint32_t sums[AT_ONCE] = {0};
            start(sums, layer->bias, c, filters);
            add_products(sums, filters, input, layer->input_zero, weights, layer->inputs, layer->inputs);
            for (int32_t i = 0; i < filters; i++, c++) {
                const int32_t value = scaled_once((int32_t)sums[i], layer->multiplier[c], layer->shift[c]);
                *output++ = clamped(value + layer->range.zero, &layer->range);
            }
        }
        input += layer->inputs;
    }
}

/* ------------------------------------------------------------------------------------------- pooling */

/* n / d, rounded to nearest, ties away from zero. */
static int32_t rounded_quotient(int32_t n, int32_t d)
{
    return n > 0 ? (n + d / 2) / d : (n - d / 2) / d;
}

void nn_average_pool_2d(const nn_pool *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;

    for (int y = 0; y < w->output_height; y++) {
        const taps rows = rows_at(w, y);
        for (int x = 0; x < w->output_width; x++) {
            const taps columns = columns_at(w, x);
            const int32_t inside = (rows.end - rows.first) * (columns.end - columns.first);
            for (int c = 0; c < w->output_channels; c++) {
                int32_t sum = 0;
                for (int ky = rows.first; ky < rows.end; ky++) {
                    for (int kx = columns.first; kx < columns.end; kx++) {
                        sum += pixel_at(w, input, rows, columns, ky, kx)[c];
                    }
                }
                *output++ = clamped(rounded_quotient(sum, inside), &layer->range);
            }
        }
    }
}

void nn_max_pool_2d(const nn_pool *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;

    for (int y = 0; y < w->output_height; y++) {
        const taps rows = rows_at(w, y);
        for (int x = 0; x < w->output_width; x++) {
            const taps columns = columns_at(w, x);
            for (int c = 0; c < w->output_channels; c++) {
                int8_t largest = INT8_MIN;
                for (int ky = rows.first; ky < rows.end; ky++) {
                    for (int kx = columns.first; kx < columns.end; kx++) {
                        const int8_t value = pixel_at(w, input, rows, columns, ky, kx)[c];
                        largest = value > largest ? value : largest;
                    }
                }
                *output++ = clamped(largest, &layer->range);
            }
        }
    }
}

void nn_mean(const nn_averaging *layer, const int8_t *input, int8_t *output)
{
    for (int32_t o = 0; o < layer->outer; o++) {
        for (int32_t i = 0; i < layer->inner; i++) {
            int32_t sum = 0;
            for (int32_t p = 0; p < layer->positions; p++) {
                sum += input[(o * layer->positions + p) * layer->inner + i] - layer->input_zero;
            }
            *output++ = stored(sum, layer->factor.multiplier, layer->factor.shift, &layer->range);
        }
    }
}

/* --------------------------------------------------------------------------------- element by element */

/* Bits that both operands of a sum are moved up by, so that little is lost when they get one scale. */
#define ADDITION_BITS 20

/* One row of a pair of tensors; a step is 0 where an operand is repeated. */
typedef void (*row_kernel)(const void *layer, const int8_t *first, int32_t first_step, const int8_t *second,
                           int32_t second_step, int8_t *output, int32_t count);

static void each_row(const nn_pairing *p, row_kernel run, const void *layer, const int8_t *first,
                     const int8_t *second, int8_t *output)
{
    for (int32_t i = 0; i < p->size[0]; i++) {
        for (int32_t j = 0; j < p->size[1]; j++) {
            for (int32_t k = 0; k < p->size[2]; k++) {
                const int8_t *a = first + i * p->first[0] + j * p->first[1] + k * p->first[2];
                const int8_t *b = second + i * p->second[0] + j * p->second[1] + k * p->second[2];
                run(layer, a, p->first[3], b, p->second[3], output, p->size[3]);
                output += p->size[3];
            }
        }
    }
}

static void add_row(const void *described, const int8_t *first, int32_t first_step, const int8_t *second,
                    int32_t second_step, int8_t *output, int32_t count)
{
    const nn_addition *layer = described;

    for (int32_t i = 0; i < count; i++) {
        const int32_t a = (first[i * first_step] - layer->first_zero) * (1 << ADDITION_BITS);
        const int32_t b = (second[i * second_step] - layer->second_zero) * (1 << ADDITION_BITS);
        const int32_t sum = scaled(a, layer->first.multiplier, layer->first.shift)
                            + scaled(b, layer->second.multiplier, layer->second.shift);
        output[i] = stored(sum, layer->sum.multiplier, layer->sum.shift, &layer->range);
    }
}

void nn_add(const nn_addition *layer, const int8_t *first, const int8_t *second, int8_t *output)
{
    each_row(&layer->pairing, add_row, layer, first, second, output);
}

static void multiply_row(const void *described, const int8_t *first, int32_t first_step, const int8_t *second,
                         int32_t second_step, int8_t *output, int32_t count)
{
    const nn_multiplication *layer = described;

    for (int32_t i = 0; i < count; i++) {
        const int32_t a = first[i * first_step] - layer->first_zero;
        const int32_t b = second[i * second_step] - layer->second_zero;
        output[i] = stored(a * b, layer->factor.multiplier, layer->factor.shift, &layer->range);
    }
}

void nn_multiply(const nn_multiplication *layer, const int8_t *first, const int8_t *second, int8_t *output)
{
    each_row(&layer->pairing, multiply_row, layer, first, second, output);
}

void nn_look_up(const int8_t *table, const int8_t *input, int8_t *output, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        output[i] = table[input[i] - INT8_MIN];
    }
}

static int8_t largest_of(const int8_t *values, int32_t count)
{
    int8_t largest = INT8_MIN;
    for (int32_t i = 0; i < count; i++) {
        largest = values[i] > largest ? values[i] : largest;
    }
    return largest;
}

/* Bits of a sum of exponentials before its point: rows of up to 4095 values. */
#define SUM_BITS 12

/* 1 / (1 + x) for x in 0 .. 1, both in 31 bits, by three steps of Newton's; the first numbers are 48/17 and -32/17. */
static int32_t reciprocal(int32_t x)
{
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + doubled_high_product(half, -1010580540);
    for (int step = 0; step < 3; step++) {
        const int32_t error = (1 << 29) - doubled_high_product(half, y);
        y += doubled_high_product(y, error) * 4;
    }
    return y > INT32_MAX / 2 ? INT32_MAX : y * 2;
}

void nn_softmax(const nn_softmax_rows *layer, const int8_t *input, int8_t *output)
{
    static const nn_range all = {INT8_MIN, INT8_MIN, INT8_MAX};

    for (int32_t row = 0; row < layer->rows; row++) {
        const int32_t *exponential = layer->exponential + UINT8_MAX - largest_of(input, layer->columns);
        int32_t sum = 0, zeros = 0;
        for (int32_t i = 0; i < layer->columns; i++) {
            sum += divided_by_power_of_two(exponential[input[i]], SUM_BITS);
        }
        while ((((uint32_t)sum << zeros) & (UINT32_C(1) << 31)) == 0) {
            zeros++;
        }
        const int32_t share = reciprocal((int32_t)(((uint32_t)sum << zeros) - (UINT32_C(1) << 31)));
        for (int32_t i = 0; i < layer->columns; i++) {
            const int32_t part = doubled_high_product(share, exponential[*input++]);
            *output++ = clamped(divided_by_power_of_two(part, SUM_BITS - zeros + 31 - 8) + all.zero, &all);
        }
    }
}

void nn_rescale(const nn_rescaling *layer, const int8_t *input, int8_t *output)
{
    for (int32_t i = 0; i < layer->count; i++) {
        const int32_t value = input[i] - layer->input_zero;
        output[i] = stored(value, layer->factor.multiplier, layer->factor.shift, &layer->range);
    }
}

/* ------------------------------------------------------------------------------------------ resizing */

/* Bits of a share of a row or column. */
#define SHARE_BITS 10

void nn_resize(const nn_resizing *layer, const int8_t *input, int8_t *output)
{
    const int32_t one = 1 << SHARE_BITS, half = 1 << (2 * SHARE_BITS - 1);
    const int32_t row_size = (int32_t)layer->input_width * layer->channels;

    for (int y = 0; y < layer->output_height; y++) {
        const int16_t *row = layer->rows + 3 * y;
        for (int x = 0; x < layer->output_width; x++) {
            const int16_t *column = layer->columns + 3 * x;
            for (int c = 0; c < layer->channels; c++) {
                const int8_t *left = input + column[0] * layer->channels + c;
                const int8_t *right = input + column[1] * layer->channels + c;
                const int32_t upper = left[row[0] * row_size] * (one - column[2]) + right[row[0] * row_size] * column[2];
                const int32_t lower = left[row[1] * row_size] * (one - column[2]) + right[row[1] * row_size] * column[2];
                const int32_t sum = upper * (one - row[2]) + lower * row[2];
                *output++ = (int8_t)((sum + (sum > 0 ? half : -half)) / (one * one));
            }
        }
    }
}

/* -------------------------------------------------------------------------------------------- moving */

void nn_pad(const nn_padding *layer, const int8_t *input, int8_t *output)
{
    const int16_t *in = layer->input, *out = layer->output, *before = layer->before;
    const int32_t bytes = (int32_t)out[0] * out[1] * out[2] * out[3];

    memset(output, layer->value, (size_t)bytes);
    for (int n = 0; n < in[0]; n++) {
        for (int y = 0; y < in[1]; y++) {
            for (int x = 0; x < in[2]; x++) {
                const int32_t row = (int32_t)(n + before[0]) * out[1] + y + before[1];
                const int32_t pixel = row * out[2] + x + before[2];
                memcpy(output + pixel * out[3] + before[3], input, (size_t)in[3]);
                input += in[3];
            }
        }
    }
}

void nn_transpose(const nn_permutation *layer, const int8_t *input, int8_t *output)
{
    const int32_t *size = layer->output, *stride = layer->stride;

    for (int32_t i = 0; i < size[0]; i++) {
        for (int32_t j = 0; j < size[1]; j++) {
            for (int32_t k = 0; k < size[2]; k++) {
                for (int32_t l = 0; l < size[3]; l++) {
                    *output++ = input[i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3]];
                }
            }
        }
    }
}

void nn_copy_rows(const int8_t *input, int8_t *output, int32_t rows, int32_t run, int32_t stride)
{
    for (int32_t row = 0; row < rows; row++) {
        memcpy(output + row * stride, input + row * run, (size_t)run);
    }
}
