// Makes the op library importable as a Python module; the ops register themselves when it is loaded.
#include <Python.h>

#define PRISM_JOIN_(a, b) a##b
#define PRISM_JOIN(a, b) PRISM_JOIN_(a, b)
#define PRISM_STRING_(a) #a
#define PRISM_STRING(a) PRISM_STRING_(a)

PyMODINIT_FUNC PRISM_JOIN(PyInit_, PRISM_MODULE_NAME)(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, PRISM_STRING(PRISM_MODULE_NAME), nullptr, -1, nullptr,
                                   nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
