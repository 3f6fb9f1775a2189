/* UNROLL before a loop with a constant count: its vectors then live in registers, not in an array. */
#ifndef MRN_UNROLL_H
#define MRN_UNROLL_H

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

#endif
