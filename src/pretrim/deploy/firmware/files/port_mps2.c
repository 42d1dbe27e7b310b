/* Made by pretrim. Arm's MPS2 boards with a Cortex-M: vector table, start-up, and semihosting, which QEMU
 * and debuggers answer. On your own board, keep its start-up code and leave this file out.
 */
#include "port.h"

#include <stdint.h>

/* Places that mps2.ld defines. */
extern uint32_t stack_top;
extern uint32_t data_load, data_start, data_end, bss_start, bss_end;

int main(void);
void reset(void);

/* ------------------------------------------------------------------------------------- semihosting */

/* Operations of "Semihosting for AArch32 and AArch64" (Arm), and the reason of an ordinary end. */
#define SYS_WRITE0 0x04u
#define SYS_EXIT_EXTENDED 0x20u
#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

static void ask_host(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void port_write(const char *text)
{
    ask_host(SYS_WRITE0, text);
}

void port_exit(int code)
{
    const uint32_t reason_and_code[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)code};
    ask_host(SYS_EXIT_EXTENDED, reason_and_code);
    for (;;) {
    }
}

/* ----------------------------------------------------------------------------------------- start-up */

void reset(void)
{
    const uint32_t *from = &data_load;
    for (uint32_t *to = &data_start; to < &data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &bss_start; to < &bss_end;) {
        *to++ = 0;
    }
    port_exit(main());
}

static void fault(void)
{
    port_write("fault\n");
    port_exit(2);
}

/* The initial stack pointer, then the handlers of reset, NMI and faults. No interrupt is enabled. */
typedef struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vector_table;

__attribute__((section(".vectors"), used)) static const vector_table vectors = {
    &stack_top,
    {reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault},
};
