/* A plugin of QEMU that counts instructions. Where QEMU emulates a program of Linux: those between calls of getppid(),
   which nothing else makes in between. Where it emulates a board: all of them, when it ends. It declares what it uses
   of the plugin interface (version 1), because Debian packs no header of it. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))
enum { ADD_U64 = 0, GETPPID = 173 };

typedef uint64_t plugin_id;
struct block;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct block *);

EXPORT int qemu_plugin_version = 1;
static uint64_t instructions;

static void translated(plugin_id id, struct block *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions, qemu_plugin_tb_n_insns(block));
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    static uint64_t before;
    if (number != GETPPID)
        return;
    fprintf(stderr, "instructions %llu\n", (unsigned long long)(instructions - before));
    before = instructions;
}

static void ended(plugin_id id, void *unused)
{
    fprintf(stderr, "all instructions %llu\n", (unsigned long long)instructions);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *information, int argc, char **argv)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
