/* Starts a program of the bundle with the loader and the C library of the bundle, so that it runs on every node: with
 * another glibc, with musl, or without any C library.
 *
 * `cnictl` is this program; it starts `lib/cnictl.bin`, which PyInstaller has made, through `lib/ld-linux-….so`. It is
 * static and uses no C library itself, only the system calls below.
 *
 * Three things of the caller's must not reach the loader, the C library and PyInstaller's bootloader, but have to reach
 * the programs that we start: variables that name libraries of the node (LD_PRELOAD), files of the node's own C library
 * (LANG: a locale's format changes between versions) and PyInstaller's own. They are put aside under other names;
 * startup.py gives them their names back, as soon as the interpreter runs. LD_LIBRARY_PATH needs no new value at all,
 * since --library-path takes its place.
 *
 * PyInstaller's bootloader would set LD_LIBRARY_PATH and execute itself a second time. It is told that this has happened
 * (_PYI_PARENT_PROCESS_LEVEL is PYI_PROCESS_LEVEL_PARENT_NEEDS_RESTART of its pyi_main.h). It would still work if a
 * later version did not understand this, and startup.py removes what it sets then.
 */
#include <stddef.h>

#if defined(__x86_64__)
#define LOADER "ld-linux-x86-64.so.2"
enum { SYS_WRITE = 1, SYS_MMAP = 9, SYS_EXECVE = 59, SYS_PRCTL = 157, SYS_EXIT = 231, SYS_READLINKAT = 267 };
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
#define LOADER "ld-linux-aarch64.so.1"
enum { SYS_WRITE = 64, SYS_READLINKAT = 78, SYS_EXIT = 94, SYS_PRCTL = 167, SYS_EXECVE = 221, SYS_MMAP = 222 };
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tb start\n");

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                  x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "no such architecture"
#endif

enum { PATH_LIMIT = 4096, COMM = 16, PROT_READ_WRITE = 3, MAP_PRIVATE_ANONYMOUS = 0x22, PR_GET_NAME = 16 };
#define AT_FDCWD (-100L)

#define ASIDE "_CNI_ASIDE_" /* startup.py has these two names as well */
#define ARGV0 "_CNI_ARGV0="

/* Put aside: a name that begins like one of these. The last is our own: a caller may have such variables as well. */
static const char *const beginnings[] = {"LD_", "LC_", "_PYI_", "PYINSTALLER_", "_CNI_A"};
/* And these names. */
static const char *const names[] = {"GCONV_PATH=", "GLIBC_TUNABLES=", "LANG=", "LANGUAGE=", "LOCPATH=", "VIRTUAL_ENV="};

static size_t length(const char *text)
{
    size_t count = 0;
    while (text[count] != 0)
        count++;
    return count;
}

static int begins(const char *text, const char *with)
{
    while (*with != 0)
        if (*text++ != *with++)
            return 0;
    return 1;
}

static int is_put_aside(const char *entry)
{
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (begins(entry, beginnings[i]))
            return 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (begins(entry, names[i]))
            return 1;
    return 0;
}

static char *memory, *end; /* what is left of the one piece of memory that is taken */

/* Put up to four texts behind each other. */
static char *join(const char *a, const char *b, const char *c, const char *d)
{
    const char *parts[] = {a, b, c, d};
    char *made = memory;
    for (size_t i = 0; i < 4; i++)
        for (const char *from = parts[i]; *from != 0 && memory < end - 1; from++)
            *memory++ = *from;
    *memory++ = 0;
    return made;
}

static __attribute__((noreturn)) void fail(const char *what, const char *why)
{
    const char *text[] = {what, ": ", why, "\n"};
    for (size_t i = 0; i < 4; i++)
        system_call(SYS_WRITE, 2, (long)text[i], (long)length(text[i]), 0, 0, 0);
    for (;;)
        system_call(SYS_EXIT, 127, 0, 0, 0, 0, 0);
}

/* What the kernel hands over on the stack: the number of arguments, they, a null, the environment, a null. */
__attribute__((noreturn, used)) void start(long *stack)
{
    static char self[PATH_LIMIT], comm[COMM + 1];
    size_t argc = (size_t)stack[0], envc = 0, room = 16 * PATH_LIMIT;
    char **argv = (char **)(stack + 1), **env = argv + argc + 1;

    long got = system_call(SYS_READLINKAT, AT_FDCWD, (long)"/proc/self/exe", (long)self, PATH_LIMIT - 1, 0, 0);
    if (got <= 0)
        fail("/proc/self/exe", "cannot be read; is /proc mounted?");
    size_t slash = (size_t)got;
    while (slash > 0 && self[slash] != '/')
        slash--;
    self[slash] = 0;
    const char *name = self + slash + 1; /* of the file, not the link that led to it */
    system_call(SYS_PRCTL, PR_GET_NAME, (long)comm, 0, 0, 0, 0);

    const char *called = argc > 0 ? argv[0] : name;
    room += length(called);
    for (; env[envc] != NULL; envc++)
        room += is_put_aside(env[envc]) ? length(env[envc]) + sizeof ASIDE : 0;
    enum { MORE = 8 }; /* of arguments and of variables */
    size_t pointers = (argc + envc + 2 * MORE) * sizeof(char *);
    long mapped =
        system_call(SYS_MMAP, 0, (long)(pointers + room), PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (mapped < 0 && mapped > -4096)
        fail(name, "there is no memory");
    char **args = (char **)mapped, **variables = args + argc + MORE;
    memory = (char *)mapped + pointers;
    end = memory + room;

    char *lib = join(self, "/lib", "", "");
    char *loader = join(lib, "/" LOADER, "", "");
    char *program = join(lib, "/", name, ".bin");
    /* argv[0] is how the bootloader finds its archive when /proc/self/exe is a loader. */
    char *first[] = {loader, "--inhibit-cache", "--library-path", lib, "--argv0", program, program};
    char **next = args;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        *next++ = first[i];
    for (size_t i = 1; i < argc; i++)
        *next++ = argv[i]; /* the memory is all zero, so a null follows */

    next = variables;
    for (size_t i = 0; i < envc; i++)
        *next++ = is_put_aside(env[i]) ? join(ASIDE, env[i], "", "") : env[i];
    *next++ = join(ARGV0, called, "", "");
    *next++ = join("_PYI_ARCHIVE_FILE=", program, "", "");
    *next++ = "_PYI_PARENT_PROCESS_LEVEL=-1";
    *next++ = join("_PYI_LINUX_PROCESS_NAME=", comm, "", ""); /* else ps would show the loader's name */

    system_call(SYS_EXECVE, (long)loader, (long)args, (long)variables, 0, 0, 0);
    fail(loader, "cannot be executed");
}
