/* Made by pretrim. Kernels for int8 networks in TFLite's integer arithmetic: C99, no heap, no state, no
 * dependency.
 *
 * Tensors are int8, height x width x channels, one image at a time. A real value is scale * (q - zero).
 * Each kernel gives the same bytes as LiteRT's reference kernel of that operator. The layers are
 * described by constants in network.c, which stay in flash.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdint.h>

/* How a window of a convolution or a pooling moves over its input. */
typedef struct {
    int16_t input_height, input_width, input_channels;
    int16_t output_height, output_width, output_channels;
    int16_t kernel_height, kernel_width;
    int16_t stride_y, stride_x;
    int16_t dilation_y, dilation_x;
    int16_t pad_top, pad_left;
} nn_window;

/* A real factor: multiplier * 2^(shift - 31), with multiplier in 2^30 .. 2^31 - 1, or 0. */
typedef struct {
    int32_t multiplier;
    int32_t shift;
} nn_factor;

/* Output values: their zero point, and the limits of a fused activation. */
typedef struct {
    int16_t zero, minimum, maximum;
} nn_range;

/* Convolution, also a transposed one. Weights: outputs x kernel height x kernel width x inputs of a group. */
typedef struct {
    nn_window window;
    int16_t group_channels; /* inputs that each output reads: all, or those of its group */
    int16_t input_zero;
    nn_range range;
    const int8_t *weights;
    const int32_t *bias; /* NULL: none */
    const int32_t *multiplier; /* of each output channel, as in nn_factor */
    const int8_t *shift;
} nn_convolution;

/* Depthwise convolution: each input channel has `depth` outputs of its own.
 * Weights: kernel height x kernel width x outputs. */
typedef struct {
    nn_window window;
    int16_t depth;
    int16_t input_zero;
    nn_range range;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
} nn_depthwise;

/* Fully connected. Weights: outputs x inputs. */
typedef struct {
    int32_t inputs, outputs;
    int32_t rows; /* input vectors: 1, but for layers that act on each position */
    int16_t input_zero;
    nn_range range;
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
} nn_dense;

/* Average or maximum over a window. */
typedef struct {
    nn_window window;
    nn_range range; /* zero is not used: input and output have the same scale */
} nn_pool;

/* Mean over neighbouring dimensions: of outer x positions x inner, over the positions. */
typedef struct {
    int32_t outer, positions, inner;
    int16_t input_zero;
    nn_range range;
    nn_factor factor; /* 1 / positions is in it */
} nn_averaging;

/* How two tensors meet: sizes of the output, and each operand's stride along them, 0 where it is repeated. */
typedef struct {
    int32_t size[4], first[4], second[4];
} nn_pairing;

/* Sum of two tensors of different scales; their difference where the second factor is negative. */
typedef struct {
    nn_pairing pairing;
    int16_t first_zero, second_zero;
    nn_range range;
    nn_factor first, second, sum;
} nn_addition;

/* Product of two tensors. */
typedef struct {
    nn_pairing pairing;
    int16_t first_zero, second_zero;
    nn_range range;
    nn_factor factor;
} nn_multiplication;

/* Softmax of each row, to values of 1/256 with -128 as zero point. */
typedef struct {
    int32_t rows, columns;
    const int32_t *exponential; /* of each difference to the largest, from -255 to 0, in 31 bits */
} nn_softmax_rows;

/* Another scale and zero point; also a ReLU that was not fused. */
typedef struct {
    int32_t count;
    int16_t input_zero;
    nn_range range;
    nn_factor factor;
} nn_rescaling;

/* Another height and width. Each row of the output is made of two of the input's: which they are, and the
 * share of the second in 1/1024, in turns; likewise each column. */
typedef struct {
    int16_t input_width, channels;
    int16_t output_height, output_width;
    const int16_t *rows, *columns;
} nn_resizing;

/* Constant values around a tensor of four dimensions. */
typedef struct {
    int16_t input[4], output[4], before[4];
    int16_t value;
} nn_padding;

/* Another order of four dimensions: sizes of the output, and the input's stride along each. */
typedef struct {
    int32_t output[4], stride[4];
} nn_permutation;

void nn_conv_2d(const nn_convolution *layer, const int8_t *input, int8_t *output);
void nn_depthwise_conv_2d(const nn_depthwise *layer, const int8_t *input, int8_t *output);
void nn_transpose_conv(const nn_convolution *layer, const int8_t *input, int8_t *output);
void nn_fully_connected(const nn_dense *layer, const int8_t *input, int8_t *output);
void nn_average_pool_2d(const nn_pool *layer, const int8_t *input, int8_t *output);
void nn_max_pool_2d(const nn_pool *layer, const int8_t *input, int8_t *output);
void nn_mean(const nn_averaging *layer, const int8_t *input, int8_t *output);
void nn_add(const nn_addition *layer, const int8_t *first, const int8_t *second, int8_t *output);
void nn_multiply(const nn_multiplication *layer, const int8_t *first, const int8_t *second, int8_t *output);
void nn_softmax(const nn_softmax_rows *layer, const int8_t *input, int8_t *output);

/* A function of one value: the table has what it gives for -128, -127, ... 127. */
void nn_look_up(const int8_t *table, const int8_t *input, int8_t *output, int32_t count);

void nn_rescale(const nn_rescaling *layer, const int8_t *input, int8_t *output);
void nn_resize(const nn_resizing *layer, const int8_t *input, int8_t *output);
void nn_pad(const nn_padding *layer, const int8_t *input, int8_t *output);
void nn_transpose(const nn_permutation *layer, const int8_t *input, int8_t *output);

/* Copies `rows` runs of `run` bytes; the output's lie `stride` bytes apart (a part of a concatenation). */
void nn_copy_rows(const int8_t *input, int8_t *output, int32_t rows, int32_t run, int32_t stride);

#endif
