/* A Python module for tests: call(function, n) calls a function for which all allocations after the first n fail.
 * It returns whether one failed; whatever the function returns or raises is dropped. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyMemAllocatorEx real[3];
static Py_ssize_t left;
static int armed, failed;

static int refuses(void)
{
    if (!armed)
        return 0;
    if (left > 0) {
        left--;
        return 0;
    }
    failed = 1;
    return 1;
}

static void *alloc(void *context, size_t size)
{
    PyMemAllocatorEx *each = context;
    return refuses() ? NULL : each->malloc(each->ctx, size);
}

static void *zeroed(void *context, size_t count, size_t size)
{
    PyMemAllocatorEx *each = context;
    return refuses() ? NULL : each->calloc(each->ctx, count, size);
}

static void *resize(void *context, void *block, size_t size)
{
    PyMemAllocatorEx *each = context;
    return refuses() ? NULL : each->realloc(each->ctx, block, size);
}

static void release(void *context, void *block)
{
    PyMemAllocatorEx *each = context;
    each->free(each->ctx, block);
}

static PyObject *call(PyObject *module, PyObject *args)
{
    PyObject *function;
    (void)module;
    if (!PyArg_ParseTuple(args, "On:call", &function, &left))
        return NULL;
    for (int domain = 0; domain < 3; domain++) {
        PyMem_GetAllocator(domain, &real[domain]);
        PyMemAllocatorEx ours = {&real[domain], alloc, zeroed, resize, release};
        PyMem_SetAllocator(domain, &ours);
    }
    failed = 0;
    armed = 1;
    PyObject *result = PyObject_CallNoArgs(function);
    armed = 0;
    for (int domain = 0; domain < 3; domain++)
        PyMem_SetAllocator(domain, &real[domain]);
    Py_XDECREF(result);
    PyErr_Clear();
    return PyBool_FromLong(failed);
}

static PyMethodDef functions[] = {{"call", call, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "no_memory", .m_size = 0, .m_methods = functions};

PyMODINIT_FUNC PyInit_no_memory(void)
{
    return PyModuleDef_Init(&definition);
}
