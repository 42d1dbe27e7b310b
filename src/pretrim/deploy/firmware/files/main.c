/* Made by pretrim. Self-test: the network on images whose outputs LiteRT's reference kernels gave when
 * this was exported. It ends with 0 where every byte is the same, else with 1.
 */
#include "network.h"
#include "port.h"
#include "samples.h"

#include <string.h>

/* Of all outputs together. */
#define VALUES ((int)sizeof samples_output[0])

static void write_number(int number)
{
    char digits[12];
    char *first = digits + sizeof digits - 1;
    *first = '\0';
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    port_write(first);
}

static void write_label(const char *label)
{
    if (label[0] != '\0') {
        port_write(" (");
        port_write(label);
        port_write(")");
    }
}

static int equal_outputs(const int8_t *expected)
{
    int equal = 0;
    for (int output = 0; output < NETWORK_OUTPUTS; output++) {
        for (int32_t i = 0; i < network_outputs[output].size; i++) {
            equal += network_outputs[output].values[i] == *expected++;
        }
    }
    return equal;
}

int main(void)
{
    int failed = 0;
    for (int sample = 0; sample < SAMPLES; sample++) {
        memcpy(network_input(), samples_input[sample], NETWORK_INPUT_SIZE);
        network_run();
        const int equal = equal_outputs(samples_output[sample]);
        failed += equal != VALUES;
        port_write("sample ");
        write_number(sample);
        port_write(": ");
        write_number(equal);
        port_write(" of ");
        write_number(VALUES);
        port_write(" outputs equal to LiteRT's");
        if (NETWORK_OUTPUTS == 1) {
            port_write("; largest: ");
            write_number(network_largest());
            write_label(network_label(network_largest()));
        }
        port_write("\n");
    }
    port_write(failed == 0 ? "passed\n" : "FAILED\n");
    return failed == 0 ? 0 : 1;
}
