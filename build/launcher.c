/* The plugins' executable: an interpreter that holds its modules in its own image.
 *
 * PyInstaller's bootloader starts twice (the second time with LD_LIBRARY_PATH set), reads an archive and
 * decompresses it: 3 ms more than this program, on every call of every plugin (bench/startup.py). Here the
 * library is found by the run path ($ORIGIN/lib), the environment stays as the runtime gave it, and modules
 * are read where the kernel mapped them. The interpreter and its extensions are the ones PyInstaller collected.
 */
#include <Python.h>

#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "frozen.h" /* written by freeze.py: frozen_modules[] */

static void fail(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

int main(int argc, char **argv)
{
    char exe[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 32);
    if (length < 0) {
        perror("/proc/self/exe");
        return 1;
    }
    exe[length] = '\0';
    char *folder = dirname(exe);

    /* A reader that goes away is an error to handle, not a reason to die half-way through an ADD. */
    signal(SIGPIPE, SIG_IGN);

    PyPreConfig pre;
    PyPreConfig_InitIsolatedConfig(&pre);
    pre.utf8_mode = 1;
    fail(Py_PreInitialize(&pre));

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.pathconfig_warnings = 0;
    config.install_signal_handlers = 0;
    config.write_bytecode = 0;
    config.optimization_level = 2;
    fail(PyConfig_SetBytesArgv(&config, argc, argv));
    config.parse_argv = 0;

    /* Every path is given, so that none is searched for. */
    char library[PATH_MAX];
    snprintf(library, sizeof library, "%s/lib", folder);
    fail(PyConfig_SetBytesString(&config, &config.executable, "/proc/self/exe"));
    fail(PyConfig_SetBytesString(&config, &config.home, library));
    fail(PyConfig_SetBytesString(&config, &config.prefix, library));
    fail(PyConfig_SetBytesString(&config, &config.exec_prefix, library));
    fail(PyConfig_SetBytesString(&config, &config.base_prefix, library));
    fail(PyConfig_SetBytesString(&config, &config.base_exec_prefix, library));
    fail(PyConfig_SetBytesString(&config, &config.stdlib_dir, library));
    snprintf(library, sizeof library, "%s/lib/" DYNLOAD, folder);
    wchar_t *dynload = Py_DecodeLocale(library, NULL);
    config.module_search_paths_set = 1;
    fail(PyWideStringList_Append(&config.module_search_paths, dynload));
    PyMem_RawFree(dynload);

    PyImport_FrozenModules = frozen_modules;
    fail(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    /* A call lives for milliseconds and ends with _exit: collecting cycles would be work for nothing. */
    PyGC_Disable();

    PyObject *module = PyImport_ImportModule("cni_plugins.multicall");
    PyObject *result = module ? PyObject_CallMethod(module, "main", NULL) : NULL;
    if (result == NULL)
        PyErr_Print();
    return 1; /* main() ends the process itself */
}
