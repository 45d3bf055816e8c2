/* Performs a list of system calls that was made for it, and becomes another program: what stands between a monitor and a command
 * that is executed in its container. A fork of the monitor would copy a thousand pages of an interpreter for the same calls.
 *
 * The list is in the file that is descriptor 4, mapped at BASE (so that it can hold pointers); descriptor 3 is told of the process
 * that was forked on the way, and of an error. Built into tiny_exec.py by
 *   gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie
 *       -mno-red-zone (x86_64 only) -Wl,-n,-z,noseparate-code,--build-id=none,-s -o tiny_exec tiny_exec.c
 */

#if defined(__x86_64__)
enum { NR_write = 1, NR_mmap = 9, NR_execve = 59, NR_getcwd = 79, NR_chdir = 80, NR_exit_group = 231, NR_newfstatat = 262 };
enum { MODE = 24 }; /* where st_mode is in struct stat */
static long call(long n, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { NR_write = 64, NR_mmap = 222, NR_execve = 221, NR_getcwd = 17, NR_chdir = 49, NR_exit_group = 94, NR_newfstatat = 79 };
enum { MODE = 16 };
static long call(long n, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#endif

#define BASE 0x10000000L
enum { SPAN = 64 << 20, READ_WRITE = 3, PRIVATE_NOREPLACE = 0x100002, CHANNEL = 3, LIST = 4, AT_FDCWD_ = -100, REMOTE = 0xffffffff };
enum { ENOENT_ = 2, EACCES_ = 13, EISDIR_ = 21 };
enum { CALL, FORK, ENTER, EXEC };                /* kinds */
enum { MAY_FAIL = 1, KEEP = 2, KEPT = 4 };       /* flags; KEPT: the first argument is the result that KEEP kept */
enum { AT_STAT, AT_EXEC, AT_SEARCH };            /* what an EXEC failed at */

struct step {
    unsigned short kind, flags;
    unsigned int skip; /* FORK: steps that the child leaves out */
    long number, arguments[6];
};

static void tell(long index, long error, long detail) {
    long words[3] = {index, error, detail};
    call(NR_write, CHANNEL, (long)words, sizeof words, 0, 0, 0);
}

static __attribute__((noreturn)) void fail(long index, long error, long detail) {
    tell(index, error, detail);
    for (;;)
        call(NR_exit_group, 125, 0, 0, 0, 0, 0);
}

/* chdir(2), to where the root is: getcwd(2) gives "(unreachable)" for a directory outside. */
static long enter(long path) {
    char where[4096];
    long result = call(NR_chdir, path, 0, 0, 0, 0, 0);
    if (result < 0)
        return result;
    result = call(NR_getcwd, (long)where, sizeof where, 0, 0, 0, 0);
    if (result < 0)
        return result;
    return where[0] == '/' ? 0 : -ENOENT_;
}

/* As Go's exec.LookPath: `direct` is a path, not a name that was looked for in several folders. */
static void execute(long index, char **candidates, long argv, long environment, long direct) {
    long status[32], denied = 0;
    for (long which = 0; candidates[which]; which++) {
        long path = (long)candidates[which], result = call(NR_newfstatat, AT_FDCWD_, path, (long)status, 0, 0, 0);
        if (result < 0) {
            if (direct)
                fail(index, -result, which << 8 | AT_STAT);
            denied |= result == -EACCES_;
            continue;
        }
        unsigned mode = *(unsigned *)((char *)status + MODE);
        int folder = (mode & 0170000) == 0040000;
        if (folder || !(mode & 0111)) {
            if (direct)
                fail(index, folder ? EISDIR_ : EACCES_, which << 8 | AT_SEARCH);
            denied |= !folder;
            continue;
        }
        fail(index, -call(NR_execve, path, argv, environment, 0, 0, 0), which << 8 | AT_EXEC);
    }
    fail(index, denied ? EACCES_ : ENOENT_, AT_SEARCH);
}

__attribute__((used, noreturn)) void begin(void) {
    long kept = 0, result = call(NR_mmap, BASE, SPAN, READ_WRITE, PRIVATE_NOREPLACE, LIST, 0);
    if (result != BASE)
        fail(0, result < 0 ? -result : EACCES_, 0);
    for (struct step *first = (struct step *)BASE, *step = first;; step++) {
        long *a = step->arguments, index = step - first;
        if (step->kind == EXEC)
            execute(index, (char **)a[0], a[1], a[2], a[3]);
        if (step->kind == ENTER)
            result = enter(a[0]);
        else
            result = call(step->number, step->flags & KEPT ? kept : a[0], a[1], a[2], a[3], a[4], a[5]);
        if (result < 0 && !(step->flags & MAY_FAIL))
            fail(index, -result, 0);
        if (step->flags & KEEP)
            kept = result;
        if (step->kind == FORK && result > 0) {
            tell(REMOTE, result, 0);
            for (;;)
                call(NR_exit_group, 0, 0, 0, 0, 0, 0);
        }
        if (step->kind == FORK && result == 0)
            step += step->skip;
    }
}

#if defined(__x86_64__)
__asm__(".global _start\n_start:\n\tand $-16, %rsp\n\tcall begin\n");
#else
__asm__(".global _start\n_start:\n\tbl begin\n");
#endif
