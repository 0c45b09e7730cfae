/* JSON for the plugins' executable, under the name `_json`: what cni_plugins/spec/codec.py asks of CPython's module
 * of that name, with the same answers and the same messages (tests/test_json_module.py compares the two).
 *
 * CPython builds its `_json` as a shared object, which a static executable cannot load. It also takes the class of
 * its errors from json.decoder, which imports re and enum. Here an error is a plain ValueError.
 *
 * The text may be hostile. char_at() compares every position with the text's length before it reads. A position never
 * exceeds the length by more than twelve, and the longest string that CPython can make is shorter than PY_SSIZE_T_MAX
 * by more than that, so positions do not overflow.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* One call of the scanner. */
typedef struct {
    PyObject *text;
    const void *data;
    int kind;
    Py_ssize_t length;
    PyObject *pairs_hook, *parse_float, *parse_constant; /* borrowed from the scanner */
    PyObject *keys;                                      /* equal keys of one text are one object */
} Scan;

static PyObject *scan_value(Scan *scan, Py_ssize_t at, Py_ssize_t *end);

/* What no text holds: the value of positions after its end. */
#define PAST_END ((Py_UCS4)-1)

static inline Py_UCS4 char_at(const Scan *scan, Py_ssize_t at)
{
    return at < scan->length ? PyUnicode_READ(scan->kind, scan->data, at) : PAST_END;
}

static inline int is_digit(Py_UCS4 c)
{
    return c >= '0' && c <= '9';
}

static Py_ssize_t skip_space(const Scan *scan, Py_ssize_t at)
{
    for (;; at++) {
        Py_UCS4 c = char_at(scan, at);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
            return at;
    }
}

/* Raise a ValueError with the text of json.JSONDecodeError. Returns NULL. */
static PyObject *refuse(const Scan *scan, const char *what, Py_ssize_t at)
{
    Py_ssize_t line = 1, line_start = 0;
    for (Py_ssize_t i = 0; i < at && i < scan->length; i++) {
        if (PyUnicode_READ(scan->kind, scan->data, i) == '\n') {
            line++;
            line_start = i + 1;
        }
    }
    PyErr_Format(PyExc_ValueError, "%s: line %zd column %zd (char %zd)", what, line, at - line_start + 1, at);
    return NULL;
}

/* Raise StopIteration(at): no value begins there. Returns NULL. */
static PyObject *no_value(Py_ssize_t at)
{
    PyObject *position = PyLong_FromSsize_t(at);
    if (position != NULL) {
        PyErr_SetObject(PyExc_StopIteration, position);
        Py_DECREF(position);
    }
    return NULL;
}

/* The number of four hexadecimal digits from `at`, or -1. */
static long four_digits(const Scan *scan, Py_ssize_t at)
{
    long number = 0;
    for (Py_ssize_t i = at; i < at + 4; i++) {
        Py_UCS4 c = char_at(scan, i), lower = c | 0x20;
        if (is_digit(c))
            number = number << 4 | (long)(c - '0');
        else if (c != PAST_END && lower >= 'a' && lower <= 'f')
            number = number << 4 | (long)(lower - 'a' + 10);
        else
            return -1;
    }
    return number;
}

/* The character of an escape whose backslash is at `at`; `*end` is set behind it. PAST_END with an error. `begin` is
 * where the string begins. */
static Py_UCS4 scan_escape(const Scan *scan, Py_ssize_t begin, Py_ssize_t at, Py_ssize_t *end)
{
    Py_UCS4 c = char_at(scan, at + 1);
    *end = at + 2;
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        break;
    case PAST_END:
        refuse(scan, "Unterminated string starting at", begin);
        return PAST_END;
    default:
        refuse(scan, "Invalid \\escape", at);
        return PAST_END;
    }
    /* At least the closing quote has to follow the digits. */
    long number = at + 6 < scan->length ? four_digits(scan, at + 2) : -1;
    if (number < 0) {
        refuse(scan, "Invalid \\uXXXX escape", at + 1);
        return PAST_END;
    }
    *end = at + 6;
    if (!Py_UNICODE_IS_HIGH_SURROGATE(number) || at + 12 >= scan->length || char_at(scan, at + 6) != '\\' ||
        char_at(scan, at + 7) != 'u')
        return (Py_UCS4)number;
    long low = four_digits(scan, at + 8);
    if (low < 0) {
        refuse(scan, "Invalid \\uXXXX escape", at + 7);
        return PAST_END;
    }
    if (!Py_UNICODE_IS_LOW_SURROGATE(low))
        return (Py_UCS4)number; /* alone; the second escape is read by itself */
    *end = at + 12;
    return Py_UNICODE_JOIN_SURROGATES((Py_UCS4)number, (Py_UCS4)low);
}

/* The string whose opening quote is at `begin`; `*end` is set behind its closing quote. */
static PyObject *scan_string(const Scan *scan, Py_ssize_t begin, Py_ssize_t *end)
{
    _PyUnicodeWriter writer;
    _PyUnicodeWriter_Init(&writer);
    writer.overallocate = 1;
    Py_ssize_t from = begin + 1; /* of the characters that stand for themselves */
    int escaped = 0;
    for (;;) {
        Py_ssize_t at = from;
        Py_UCS4 c = char_at(scan, at);
        while (c != '"' && c != '\\' && c > 0x1f && c != PAST_END)
            c = char_at(scan, ++at);
        if (c == PAST_END) {
            refuse(scan, "Unterminated string starting at", begin);
            break;
        }
        if (c <= 0x1f) {
            refuse(scan, "Invalid control character at", at);
            break;
        }
        if (c == '"' && !escaped) {
            *end = at + 1;
            return PyUnicode_Substring(scan->text, from, at); /* the writer has allocated nothing */
        }
        if (at > from && _PyUnicodeWriter_WriteSubstring(&writer, scan->text, from, at) < 0)
            break;
        if (c == '"') {
            *end = at + 1;
            return _PyUnicodeWriter_Finish(&writer);
        }
        c = scan_escape(scan, begin, at, &from);
        if (c == PAST_END || _PyUnicodeWriter_WriteChar(&writer, c) < 0)
            break;
        escaped = 1;
    }
    _PyUnicodeWriter_Dealloc(&writer);
    return NULL;
}

/* The number that begins at `begin`. */
static PyObject *scan_number(const Scan *scan, Py_ssize_t begin, Py_ssize_t *end)
{
    Py_ssize_t at = begin;
    int fraction = 0;
    if (char_at(scan, at) == '-')
        at++;
    if (!is_digit(char_at(scan, at)))
        return no_value(begin);
    if (char_at(scan, at) == '0') /* nothing but a fraction or an exponent follows a leading zero */
        at++;
    else
        while (is_digit(char_at(scan, at)))
            at++;
    if (char_at(scan, at) == '.' && is_digit(char_at(scan, at + 1))) {
        fraction = 1;
        at += 2;
        while (is_digit(char_at(scan, at)))
            at++;
    }
    if (char_at(scan, at) == 'e' || char_at(scan, at) == 'E') {
        Py_ssize_t digits = at + 1;
        if (char_at(scan, digits) == '-' || char_at(scan, digits) == '+')
            digits++;
        if (is_digit(char_at(scan, digits))) {
            fraction = 1;
            at = digits + 1;
            while (is_digit(char_at(scan, at)))
                at++;
        }
    }
    *end = at;
    PyObject *digits = PyUnicode_Substring(scan->text, begin, at), *number;
    if (digits == NULL)
        return NULL;
    if (fraction)
        number = PyObject_CallOneArg(scan->parse_float, digits);
    else
        number = PyLong_FromUnicodeObject(digits, 10); /* refuses more digits than sys.set_int_max_str_digits allows */
    Py_DECREF(digits);
    return number;
}

/* The string, colon and value from `at` as a tuple of key and value. */
static PyObject *scan_pair(Scan *scan, Py_ssize_t at, Py_ssize_t *end)
{
    if (char_at(scan, at) != '"')
        return refuse(scan, "Expecting property name enclosed in double quotes", at);
    PyObject *key = scan_string(scan, at, &at);
    if (key == NULL)
        return NULL;
    PyObject *known = PyDict_SetDefault(scan->keys, key, key); /* borrowed */
    Py_XINCREF(known);
    Py_DECREF(key);
    if (known == NULL)
        return NULL;
    PyObject *value = NULL;
    at = skip_space(scan, at);
    if (char_at(scan, at) != ':')
        refuse(scan, "Expecting ':' delimiter", at);
    else
        value = scan_value(scan, skip_space(scan, at + 1), end);
    PyObject *pair = value != NULL ? PyTuple_Pack(2, known, value) : NULL;
    Py_DECREF(known);
    Py_XDECREF(value);
    return pair;
}

/* A list of what stands between the bracket before `at` and `close`. */
static PyObject *scan_items(Scan *scan, Py_ssize_t at, Py_ssize_t *end, Py_UCS4 close,
                            PyObject *(*scan_item)(Scan *, Py_ssize_t, Py_ssize_t *))
{
    PyObject *items = PyList_New(0);
    if (items == NULL)
        return NULL;
    at = skip_space(scan, at);
    if (char_at(scan, at) == close) {
        *end = at + 1;
        return items;
    }
    for (;;) {
        PyObject *item = scan_item(scan, at, &at);
        if (item == NULL)
            break;
        int failed = PyList_Append(items, item);
        Py_DECREF(item);
        if (failed)
            break;
        at = skip_space(scan, at);
        if (char_at(scan, at) == close) {
            *end = at + 1;
            return items;
        }
        if (char_at(scan, at) != ',') {
            refuse(scan, "Expecting ',' delimiter", at);
            break;
        }
        at = skip_space(scan, at + 1);
    }
    Py_DECREF(items);
    return NULL;
}

static int has_word(const Scan *scan, Py_ssize_t at, const char *word, Py_ssize_t *end)
{
    for (; *word != '\0'; word++, at++)
        if (char_at(scan, at) != (Py_UCS4)*word)
            return 0;
    *end = at;
    return 1;
}

static PyObject *scan_value(Scan *scan, Py_ssize_t at, Py_ssize_t *end)
{
    static const char *const constants[] = {"NaN", "Infinity", "-Infinity"};
    PyObject *pairs, *value;
    switch (char_at(scan, at)) {
    case '"':
        return scan_string(scan, at, end);
    case '{':
        if (Py_EnterRecursiveCall(" while decoding a JSON object from a unicode string"))
            return NULL;
        pairs = scan_items(scan, at + 1, end, '}', scan_pair);
        value = pairs != NULL ? PyObject_CallOneArg(scan->pairs_hook, pairs) : NULL;
        Py_XDECREF(pairs);
        Py_LeaveRecursiveCall();
        return value;
    case '[':
        if (Py_EnterRecursiveCall(" while decoding a JSON array from a unicode string"))
            return NULL;
        value = scan_items(scan, at + 1, end, ']', scan_value);
        Py_LeaveRecursiveCall();
        return value;
    case 'n':
        if (has_word(scan, at, "null", end))
            Py_RETURN_NONE;
        break;
    case 't':
        if (has_word(scan, at, "true", end))
            Py_RETURN_TRUE;
        break;
    case 'f':
        if (has_word(scan, at, "false", end))
            Py_RETURN_FALSE;
        break;
    default:
        break;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(constants); i++)
        if (has_word(scan, at, constants[i], end))
            return PyObject_CallFunction(scan->parse_constant, "s", constants[i]);
    return scan_number(scan, at, end);
}

/* The scanner: a function of text and position whose `self` is the tuple of hooks that make_scanner read. */
static PyObject *scan_once(PyObject *hooks, PyObject *args)
{
    Py_ssize_t at, end = 0;
    Scan scan = {0};
    if (!PyArg_ParseTuple(args, "Un:scan_once", &scan.text, &at))
        return NULL;
    if (at < 0) {
        PyErr_SetString(PyExc_ValueError, "idx cannot be negative");
        return NULL;
    }
    if (PyUnicode_READY(scan.text) < 0)
        return NULL;
    scan.data = PyUnicode_DATA(scan.text);
    scan.kind = PyUnicode_KIND(scan.text);
    scan.length = PyUnicode_GET_LENGTH(scan.text);
    if (at >= scan.length)
        return no_value(at);
    scan.pairs_hook = PyTuple_GET_ITEM(hooks, 0);
    scan.parse_float = PyTuple_GET_ITEM(hooks, 1);
    scan.parse_constant = PyTuple_GET_ITEM(hooks, 2);
    scan.keys = PyDict_New();
    if (scan.keys == NULL)
        return NULL;
    PyObject *value = scan_value(&scan, at, &end);
    Py_DECREF(scan.keys);
    return value != NULL ? Py_BuildValue("(Nn)", value, end) : NULL;
}

static PyMethodDef scan_once_method = {"scan_once", scan_once, METH_VARARGS, NULL};

/* 1 if an attribute is `wanted`, 0 with an error if not. */
static int is_set_to(PyObject *settings, const char *name, PyObject *wanted)
{
    PyObject *value = PyObject_GetAttrString(settings, name);
    if (value == NULL)
        return 0;
    Py_DECREF(value); /* compared by address, not used */
    if (value != wanted)
        PyErr_Format(PyExc_TypeError, "this scanner has no other %s than %R", name, wanted);
    return value == wanted;
}

/* Make a scanner. The settings that codec.py leaves at their strictest cannot be changed here. */
static PyObject *make_scanner(PyObject *module, PyObject *settings)
{
    (void)module;
    if (!is_set_to(settings, "strict", Py_True) || !is_set_to(settings, "object_hook", Py_None) ||
        !is_set_to(settings, "parse_int", (PyObject *)&PyLong_Type))
        return NULL;
    PyObject *pairs = PyObject_GetAttrString(settings, "object_pairs_hook");
    PyObject *number = pairs != NULL ? PyObject_GetAttrString(settings, "parse_float") : NULL;
    PyObject *constant = number != NULL ? PyObject_GetAttrString(settings, "parse_constant") : NULL;
    PyObject *hooks = constant != NULL ? PyTuple_Pack(3, pairs, number, constant) : NULL;
    PyObject *scanner = hooks != NULL ? PyCFunction_New(&scan_once_method, hooks) : NULL;
    Py_XDECREF(pairs);
    Py_XDECREF(number);
    Py_XDECREF(constant);
    Py_XDECREF(hooks);
    return scanner;
}

/* Write a character as JSON in ASCII, behind `out`; return the end. At most LONGEST characters. */
enum { LONGEST = 12 };

static char *put_unit(char *out, Py_UCS4 unit)
{
    static const char digits[] = "0123456789abcdef";
    *out++ = '\\';
    *out++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4)
        *out++ = digits[unit >> shift & 15];
    return out;
}

static char *put_char(char *out, Py_UCS4 c)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs of a character and its letter */
    if (c >= ' ' && c <= '~' && c != '"' && c != '\\') {
        *out++ = (char)c;
        return out;
    }
    for (const char *pair = named; *pair != '\0'; pair += 2) {
        if (c == (Py_UCS4)pair[0]) {
            *out++ = '\\';
            *out++ = pair[1];
            return out;
        }
    }
    if (c <= 0xffff)
        return put_unit(out, c);
    return put_unit(put_unit(out, Py_UNICODE_HIGH_SURROGATE(c)), Py_UNICODE_LOW_SURROGATE(c));
}

/* Return a string in quotes, with everything escaped that is not printable ASCII. */
static PyObject *encode_basestring_ascii(PyObject *module, PyObject *text)
{
    (void)module;
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "first argument must be a string, not %.80s", Py_TYPE(text)->tp_name);
        return NULL;
    }
    if (PyUnicode_READY(text) < 0)
        return NULL;
    Py_ssize_t length = PyUnicode_GET_LENGTH(text), size = 2;
    const void *data = PyUnicode_DATA(text);
    int kind = PyUnicode_KIND(text);
    char scratch[LONGEST];
    for (Py_ssize_t i = 0; i < length; i++) {
        if (size > PY_SSIZE_T_MAX - LONGEST) {
            PyErr_SetString(PyExc_OverflowError, "string is too long to escape");
            return NULL;
        }
        size += put_char(scratch, PyUnicode_READ(kind, data, i)) - scratch;
    }
    PyObject *quoted = PyUnicode_New(size, 127);
    if (quoted == NULL)
        return NULL;
    char *out = (char *)PyUnicode_1BYTE_DATA(quoted);
    *out++ = '"';
    for (Py_ssize_t i = 0; i < length; i++)
        out = put_char(out, PyUnicode_READ(kind, data, i));
    *out = '"';
    return quoted;
}

static PyMethodDef functions[] = {
    {"make_scanner", make_scanner, METH_O, NULL},
    {"encode_basestring_ascii", encode_basestring_ascii, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_json", .m_size = 0, .m_methods = functions};

PyMODINIT_FUNC PyInit__json(void)
{
    return PyModuleDef_Init(&definition);
}
