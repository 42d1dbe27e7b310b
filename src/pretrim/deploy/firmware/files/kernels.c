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

/* ---------------------------------------------------------------------------- fixed-point arithmetic */

/* The upper 32 bits of 2ab, rounded to nearest. Its only overflow saturates. */
static int32_t doubled_high_product(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    const int64_t product = (int64_t)a * b;
    const int64_t nudge = product >= 0 ? INT64_C(1) << 30 : 1 - (INT64_C(1) << 30);
    return (int32_t)((product + nudge) / (INT64_C(1) << 31));
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

/* Sums are unsigned, so that they wrap, as LiteRT's do: where the input's scale is tiny, a bias fills all 32 bits. */
static uint32_t first_sum(const int32_t *bias, int32_t channel)
{
    return bias != NULL ? (uint32_t)bias[channel] : 0;
}

static int32_t dot(const int8_t *input, int input_zero, const int8_t *weights, int32_t count)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += (input[i] - input_zero) * weights[i];
    }
    return sum;
}

void nn_conv_2d(const nn_convolution *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;
    const int depth = layer->group_channels;
    const int outputs_of_group = w->output_channels / (w->input_channels / depth);
    const int32_t filter_size = (int32_t)w->kernel_height * w->kernel_width * depth;

    for (int y = 0; y < w->output_height; y++) {
        const taps rows = rows_at(w, y);
        for (int x = 0; x < w->output_width; x++) {
            const taps columns = columns_at(w, x);
            for (int c = 0; c < w->output_channels; c++) {
                const int8_t *filter = layer->weights + c * filter_size;
                const int group = c / outputs_of_group;
                uint32_t sum = first_sum(layer->bias, c);
                for (int ky = rows.first; ky < rows.end; ky++) {
                    for (int kx = columns.first; kx < columns.end; kx++) {
                        const int8_t *pixel = pixel_at(w, input, rows, columns, ky, kx) + group * depth;
                        const int8_t *weights = filter + (ky * w->kernel_width + kx) * depth;
                        sum += (uint32_t)dot(pixel, layer->input_zero, weights, depth);
                    }
                }
                *output++ = stored((int32_t)sum, layer->multiplier[c], layer->shift[c], &layer->range);
            }
        }
    }
}

void nn_depthwise_conv_2d(const nn_depthwise *layer, const int8_t *input, int8_t *output)
{
    const nn_window *w = &layer->window;

    for (int y = 0; y < w->output_height; y++) {
        const taps rows = rows_at(w, y);
        for (int x = 0; x < w->output_width; x++) {
            const taps columns = columns_at(w, x);
            for (int c = 0; c < w->output_channels; c++) {
                const int channel = c / layer->depth;
                uint32_t sum = first_sum(layer->bias, c);
                for (int ky = rows.first; ky < rows.end; ky++) {
                    for (int kx = columns.first; kx < columns.end; kx++) {
                        const int32_t value = pixel_at(w, input, rows, columns, ky, kx)[channel];
                        const int tap = ky * w->kernel_width + kx;
                        sum += (uint32_t)((value - layer->input_zero) * layer->weights[tap * w->output_channels + c]);
                    }
                }
                *output++ = stored((int32_t)sum, layer->multiplier[c], layer->shift[c], &layer->range);
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

    for (int y = 0; y < w->output_height; y++) {
        for (int x = 0; x < w->output_width; x++) {
            const int8_t *filter = layer->weights;
            for (int c = 0; c < w->output_channels; c++) {
                uint32_t sum = first_sum(layer->bias, c);
                for (int ky = 0; ky < w->kernel_height; ky++) {
                    const int row = spread_from(y, w->pad_top, ky, w->stride_y, w->input_height);
                    for (int kx = 0; kx < w->kernel_width; kx++, filter += depth) {
                        const int column = spread_from(x, w->pad_left, kx, w->stride_x, w->input_width);
                        if (row >= 0 && column >= 0) {
                            const int8_t *pixel = input + ((int32_t)row * w->input_width + column) * depth;
                            sum += (uint32_t)dot(pixel, layer->input_zero, filter, depth);
                        }
                    }
                }
                *output++ = stored((int32_t)sum, layer->multiplier[c], layer->shift[c], &layer->range);
            }
        }
    }
}

void nn_fully_connected(const nn_dense *layer, const int8_t *input, int8_t *output)
{
    for (int32_t row = 0; row < layer->rows; row++) {
        for (int32_t c = 0; c < layer->outputs; c++) {
            const int8_t *weights = layer->weights + c * layer->inputs;
            const uint32_t sum = first_sum(layer->bias, c) + (uint32_t)dot(input, layer->input_zero, weights, layer->inputs);
            const int32_t value = scaled_once((int32_t)sum, layer->multiplier[c], layer->shift[c]);
            *output++ = clamped(value + layer->range.zero, &layer->range);
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
