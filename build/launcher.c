/* The plugins' executable: an interpreter that holds its modules in its own image, and starts only half-way.
 *
 * PyInstaller's bootloader starts twice (the second time with LD_LIBRARY_PATH set), reads an archive and
 * decompresses it, on every call of every plugin (bench/startup.py). Here modules are read where the kernel
 * mapped them, and the environment stays as the runtime gave it. What else is left out:
 *
 * - every shared library, the C library too: the file is static and at a fixed address, so it starts on any Linux of
 *   its architecture, and there is no dynamic linker to wait for;
 * - the standard library that the interpreter carries (deepfreeze.o, 0.9 MB of objects, whose every string it
 *   would intern), and the modules written in C that no plugin imports: freeze.py writes the tables of both kinds;
 * - the second phase of its start, which sets up codecs, sys.path and sys.stdin: PyConfig._init_main (PEP 587,
 *   "Multi-Phase Initialization"). Built-in and frozen modules, all that a plugin has, need the first alone.
 */
#define _GNU_SOURCE
#include <Python.h>

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

/* Written by freeze.py: frozen_bootstrap[], frozen_modules[], MAIN_MODULE, and _PyImport_Inittab[], which takes the
 * place of config.o of libpython.a. */
#include "frozen.h"

/* In the place of frozen.o and deepfreeze.o of libpython.a (Python/frozen.c; its header is internal). */
struct _module_alias {
    const char *name;
    const char *orig;
};
static const struct _frozen nothing[] = {{NULL, NULL, 0, 0, NULL}};
static const struct _module_alias aliases[] = {{"_frozen_importlib", "importlib._bootstrap"}, {NULL, NULL}};
const struct _frozen *PyImport_FrozenModules = frozen_modules;
const struct _frozen *_PyImport_FrozenBootstrap = frozen_bootstrap;
const struct _frozen *_PyImport_FrozenStdlib = nothing;
const struct _frozen *_PyImport_FrozenTest = nothing;
const struct _module_alias *_PyImport_FrozenAliases = aliases;

int _Py_Deepfreeze_Init(void)
{
    return 0;
}

void _Py_Deepfreeze_Fini(void)
{
}

/* The interpreter's small objects are in arenas of 1 MiB, of which a call uses two, and the kernel hands over
 * their pages one by one, 250 of them. It takes 0.3 ms less to have both in one huge page, where the system
 * gives those to who asks (transparent_hugepage, madvise(2)). */
static void *arena_alloc(void *context, size_t size)
{
    static const size_t huge = 2 << 20;
    static char *rest, *end;
    (void)context;
    if (end == NULL) {
        char *area = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED)
            return NULL;
        rest = area + (-(uintptr_t)area & (huge - 1));
        end = rest + huge;
        madvise(rest, huge, MADV_HUGEPAGE); /* without: small pages, as anywhere */
    }
    if (size <= (size_t)(end - rest)) {
        rest += size;
        return rest - size;
    }
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void arena_free(void *context, void *arena, size_t size)
{
    (void)context;
    munmap(arena, size);
}

static PyObjectArenaAllocator arenas = {NULL, arena_alloc, arena_free};

/* posix.setns, which Python has from 3.12 on: the ctypes extension, for this alone, would take 0.5 ms. */
static PyObject *posix_setns(PyObject *module, PyObject *args)
{
    int fd, kind;
    (void)module;
    if (!PyArg_ParseTuple(args, "ii:setns", &fd, &kind))
        return NULL;
    if (setns(fd, kind) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef posix_functions[] = {{"setns", posix_setns, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyObject *whole_import, *module_spec, *create_builtin, *exec_builtin;

/* A module of the interpreter's own, as importlib.machinery.BuiltinImporter makes it. */
static PyObject *import_builtin(PyObject *name)
{
    PyObject *spec = PyObject_CallFunctionObjArgs(module_spec, name, Py_None, NULL);
    PyObject *module = spec != NULL ? PyObject_CallOneArg(create_builtin, spec) : NULL;
    PyObject *done = NULL;
    if (module != NULL && PyObject_SetAttrString(module, "__spec__", spec) == 0 &&
        PyObject_SetItem(PyImport_GetModuleDict(), name, module) == 0)
        done = PyObject_CallOneArg(exec_builtin, module);
    Py_XDECREF(spec);
    Py_XDECREF(done);
    if (done == NULL)
        Py_CLEAR(module);
    return module;
}

static int is_builtin(PyObject *name)
{
    for (const struct _inittab *row = PyImport_Inittab; row->name != NULL; row++)
        if (PyUnicode_CompareWithASCIIString(name, row->name) == 0)
            return 1;
    return 0;
}

/* The package of a dotted name, imported if need be; NULL without an error for a name without a dot. */
static PyObject *import_parent(PyObject *name, Py_ssize_t dot)
{
    PyObject *package = dot < 0 ? NULL : PyUnicode_Substring(name, 0, dot);
    if (package == NULL)
        return NULL;
    PyObject *parent = PyImport_GetModule(package);
    if (parent == NULL && !PyErr_Occurred()) {
        PyObject *top = PyImport_ImportModuleLevelObject(package, NULL, NULL, NULL, 0);
        parent = top != NULL ? PyImport_GetModule(package) : NULL;
        Py_XDECREF(top);
    }
    Py_DECREF(package);
    return parent;
}

/* In the place of importlib._bootstrap._find_and_load, which `import` calls for what is not loaded yet. That
 * is written in Python, for finders and loaders of any kind, and takes 10 to 15 us a module; a call loads
 * forty. Whatever is neither frozen nor built in is left to it. */
static PyObject *find_and_load(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *name = PyTuple_GET_ITEM(arguments, 0), *module = NULL;
    Py_ssize_t length = PyUnicode_GET_LENGTH(name), dot = PyUnicode_FindChar(name, '.', 0, length, -1);
    PyObject *parent = import_parent(name, dot);
    if (parent == NULL && PyErr_Occurred())
        return NULL;
    int found = PyImport_ImportFrozenModuleObject(name);
    if (found > 0)
        module = PyImport_GetModule(name);
    else if (found == 0)
        module = is_builtin(name) ? import_builtin(name) : PyObject_Call(whole_import, arguments, NULL);
    if (found > 0 && module != NULL && parent != NULL) {
        PyObject *last = PyUnicode_Substring(name, dot + 1, length);
        if (last == NULL || PyObject_SetAttr(parent, last, module) < 0)
            Py_CLEAR(module);
        Py_XDECREF(last);
    }
    Py_XDECREF(parent);
    return module;
}

static PyMethodDef find_and_load_method = {"_find_and_load", find_and_load, METH_VARARGS, NULL};

static int shorten_imports(void)
{
    PyObject *importlib = PyImport_ImportModule("_frozen_importlib"), *imp = PyImport_ImportModule("_imp");
    if (importlib == NULL || imp == NULL)
        return -1;
    whole_import = PyObject_GetAttrString(importlib, "_find_and_load");
    module_spec = PyObject_GetAttrString(importlib, "ModuleSpec");
    create_builtin = PyObject_GetAttrString(imp, "create_builtin");
    exec_builtin = PyObject_GetAttrString(imp, "exec_builtin");
    PyObject *function = PyCFunction_New(&find_and_load_method, NULL);
    if (whole_import == NULL || module_spec == NULL || create_builtin == NULL || exec_builtin == NULL ||
        function == NULL)
        return -1;
    return PyObject_SetAttrString(importlib, "_find_and_load", function);
}

static void fail(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

/* sys.stderr does not exist, where PyErr_Print would write. */
static int complain(const char *program)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value ? PyObject_Repr(value) : NULL;
    const char *bytes = text ? PyUnicode_AsUTF8(text) : NULL;
    fprintf(stderr, "%s: cannot start: %s\n", program, bytes ? bytes : "unknown error");
    return 1;
}

int main(int argc, char **argv)
{
    /* A reader that goes away is an error to handle, not a reason to die half-way through an ADD. */
    signal(SIGPIPE, SIG_IGN);

    PyPreConfig pre;
    PyPreConfig_InitIsolatedConfig(&pre);
    pre.utf8_mode = 1;
    fail(Py_PreInitialize(&pre));

    PyObject_SetArenaAllocator(&arenas);
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config._init_main = 0;
    config.site_import = 0;
    config.pathconfig_warnings = 0;
    config.install_signal_handlers = 0;
    config.write_bytecode = 0;
    config.optimization_level = 2;
    config.module_search_paths_set = 1;
    fail(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    /* A call lives for milliseconds and ends with _exit: collecting cycles would be work for nothing. */
    PyGC_Disable();

    PyObject *arguments = PyList_New(argc);
    for (int i = 0; arguments != NULL && i < argc; i++) {
        PyObject *argument = PyUnicode_DecodeFSDefault(argv[i]);
        if (argument == NULL)
            return complain(argv[0]);
        PyList_SET_ITEM(arguments, i, argument);
    }
    if (arguments == NULL || PySys_SetObject("argv", arguments) < 0)
        return complain(argv[0]);
    if (shorten_imports() < 0)
        return complain(argv[0]);
    PyObject *posix = PyImport_ImportModule("posix");
    if (posix == NULL || PyModule_AddFunctions(posix, posix_functions) < 0)
        return complain(argv[0]);
    PyObject *module = PyImport_ImportModule(MAIN_MODULE);
    if (module != NULL)
        PyObject_CallMethod(module, "main", NULL);
    return complain(argv[0]); /* main() ends the process itself */
}
