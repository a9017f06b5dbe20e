//! Dot products of one vector with rows of weights.

/// Sums kept side by side: enough to hide the latency of a fused multiply-add.
const LANES: usize = 64;

/// `products[i] = x * weights[i]` with `weights` `[products, x]`.
pub(crate) fn dot_products(x: &[f32], weights: &[f32], products: &mut [f32]) {
    debug_assert_eq!(weights.len(), x.len() * products.len());
    dispatch(x, weights, products);
}

#[cfg(target_arch = "x86_64")]
fn dispatch(x: &[f32], weights: &[f32], products: &mut [f32]) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the features the function is compiled for.
        unsafe { all_avx512(x, weights, products) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features the function is compiled for.
        unsafe { all_avx2(x, weights, products) }
    } else {
        all(x, weights, products, |a, b, c| a * b + c);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(x: &[f32], weights: &[f32], products: &mut [f32]) {
    all(x, weights, products, |a, b, c| a * b + c);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn all_avx512(x: &[f32], weights: &[f32], products: &mut [f32]) {
    all(x, weights, products, f32::mul_add);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn all_avx2(x: &[f32], weights: &[f32], products: &mut [f32]) {
    all(x, weights, products, f32::mul_add);
}

#[inline(always)]
fn all(x: &[f32], weights: &[f32], products: &mut [f32], mul_add: impl Fn(f32, f32, f32) -> f32) {
    for (product, row) in products.iter_mut().zip(weights.chunks_exact(x.len())) {
        let mut sums = [0f32; LANES];
        let (x_parts, x_rest) = x.as_chunks::<LANES>();
        let (row_parts, row_rest) = row.as_chunks::<LANES>();
        for (x, row) in x_parts.iter().zip(row_parts) {
            for ((sum, x), weight) in sums.iter_mut().zip(x).zip(row) {
                *sum = mul_add(*x, *weight, *sum);
            }
        }
        let rest: f32 = x_rest.iter().zip(row_rest).map(|(x, weight)| x * weight).sum();
        *product = sums.iter().sum::<f32>() + rest;
    }
}
