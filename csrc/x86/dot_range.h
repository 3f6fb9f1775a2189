/* range_s8 of dot_stage.h for four rows at once: `found` holds the highest numbers of all four, then the
 * lowest ones, without their sign bit, so that they compare as signed integers. The including file defines
 * NAME and TARGET. */
static inline TARGET void NAME(ranges_of_four)(__m256i found, mrn_dot_rows about, size_t row) {
    const __m256i broken = _mm256_cmpgt_epi32(found, _mm256_set1_epi32(0x7f7fffff));
    const __m256i bits =
        _mm256_xor_si256(found, _mm256_setr_epi32(0, 0, 0, 0, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN));
    const __m256 range = _mm256_castsi256_ps(bits), parts = _mm256_div_ps(range, _mm256_set1_ps(255.0F));
    const __m128 least = _mm256_extractf128_ps(range, 1);
    const __m128 step = _mm_sub_ps(_mm256_castps256_ps128(parts), _mm256_extractf128_ps(parts, 1));
    const __m128 scale = _mm_max_ps(step, _mm_set1_ps(1e-37F));
    const __m128 inverse = _mm_div_ps(_mm_set1_ps(1.0F), scale);
    const __m128 shifted = _mm_sub_ps(_mm_set1_ps(MAGIC), _mm_mul_ps(least, inverse));
    const __m128i zero =
        _mm_sub_epi32(_mm_min_epi32(_mm_castps_si128(shifted), _mm_set1_epi32(MAGIC_BITS + 255)),
                      _mm_set1_epi32(MAGIC_BITS));
    const __m128i not_finite =
        _mm_or_si128(_mm256_castsi256_si128(broken), _mm256_extracti128_si256(broken, 1));
    _mm_storeu_ps(about.scale + row, _mm_blendv_ps(scale, _mm_set1_ps(NAN), _mm_castsi128_ps(not_finite)));
    _mm_storeu_ps(about.inverse + row, inverse);
    _mm_storeu_si128((__m128i *)(void *)(about.zero + row), _mm_andnot_si128(not_finite, zero));
}
