/* Process 1 of a container that was started with --init: starts the command, hands signals on to it, reaps what is left
 * behind, and ends as the command ended. No library, one page of memory.
 *
 * argv: its own name, the path to execute, then the command's argv. Built into tiny_init.py by
 *   gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie
 *       -mno-red-zone (x86_64 only) -Wl,-n,-z,noseparate-code,--build-id=none,-s -o tiny_init tiny_init.c
 */

#if defined(__x86_64__)
enum { NR_ioctl = 16, NR_clone = 56, NR_execve = 59, NR_wait4 = 61, NR_kill = 62, NR_setpgid = 109, NR_prctl = 157,
       NR_sigaction = 13, NR_sigprocmask = 14, NR_sigtimedwait = 128, NR_exit_group = 231, NR_getpid = 39 };
static long call(long n, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { NR_ioctl = 29, NR_clone = 220, NR_execve = 221, NR_wait4 = 260, NR_kill = 129, NR_setpgid = 154, NR_prctl = 167,
       NR_sigaction = 134, NR_sigprocmask = 135, NR_sigtimedwait = 137, NR_exit_group = 94, NR_getpid = 172 };
static long call(long n, long a, long b, long c, long d, long e) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#endif

enum { SIGILL_ = 4, SIGTRAP_ = 5, SIGABRT_ = 6, SIGBUS_ = 7, SIGFPE_ = 8, SIGSEGV_ = 11, SIGCHLD_ = 17, SIGTTIN_ = 21,
       SIGTTOU_ = 22, SIGSYS_ = 31, SETMASK = 2, WNOHANG_ = 1, TIOCSPGRP_ = 0x5410, SET_NAME = 15, ENOENT_ = 2 };

/* Raised by the process itself: they are not to be handed on. */
#define OWN (1UL << (SIGILL_ - 1) | 1UL << (SIGTRAP_ - 1) | 1UL << (SIGABRT_ - 1) | 1UL << (SIGBUS_ - 1) | \
             1UL << (SIGFPE_ - 1) | 1UL << (SIGSEGV_ - 1) | 1UL << (SIGSYS_ - 1) | 1UL << (SIGTTIN_ - 1) | 1UL << (SIGTTOU_ - 1))

struct action { unsigned long handler, flags, restorer, mask; };

static void terminal_signals(unsigned long handler) {
    struct action action = {handler, 0, 0, 0};
    call(NR_sigaction, SIGTTIN_, (long)&action, 0, 8, 0);
    call(NR_sigaction, SIGTTOU_, (long)&action, 0, 8, 0);
}

static void child(char **argv, char **environment, unsigned long *mask) {
    int self = (int)call(NR_getpid, 0, 0, 0, 0, 0);
    call(NR_setpgid, 0, 0, 0, 0, 0);
    call(NR_ioctl, 0, TIOCSPGRP_, (long)&self, 0, 0); /* the foreground, where stdin is the terminal */
    terminal_signals(0);
    call(NR_sigprocmask, SETMASK, (long)mask, 0, 8, 0);
    long failed = -call(NR_execve, (long)argv[1], (long)(argv + 2), (long)environment, 0, 0);
    call(NR_exit_group, failed == ENOENT_ ? 127 : 126, 0, 0, 0, 0);
}

__attribute__((used, noreturn)) void begin(long *stack) {
    long count = stack[0];
    char **argv = (char **)(stack + 1), **environment = argv + count + 1;
    unsigned long all = ~OWN, before = 0;
    int status, ended = -1;

    call(NR_prctl, SET_NAME, (long)"init", 0, 0, 0);
    call(NR_sigprocmask, SETMASK, (long)&all, (long)&before, 8, 0);
    terminal_signals(1);
    long first = count < 3 ? -1 : call(NR_clone, SIGCHLD_, 0, 0, 0, 0);
    if (first == 0)
        child(argv, environment, &before);
    while (first > 0 && ended < 0) {
        long signal = call(NR_sigtimedwait, (long)&all, 0, 0, 8, 0);
        if (signal != SIGCHLD_) {
            if (signal > 0)
                call(NR_kill, first, signal, 0, 0, 0);
            continue;
        }
        long pid;
        while ((pid = call(NR_wait4, -1, (long)&status, WNOHANG_, 0, 0)) > 0)
            if (pid == first)
                ended = status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
    }
    for (;;)
        call(NR_exit_group, ended < 0 ? 126 : ended, 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".global _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
#else
__asm__(".global _start\n_start:\n\tmov x0, sp\n\tbl begin\n");
#endif
