// Alpha blending of tiles and its gradient: dreamer_core/rendering/numba_blending.py once more, in C++, to see what
// numba costs. Same tile lists and records, same order of the pixels, same polynomial, same gradient slots.
// Built and called by benchmarks/cpp_blending.py.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int TILE = 16, COLUMNS = 8, HALF_TILE = TILE * COLUMNS, LANES = 16, BLOCKS = 8, MERGE = 5;
constexpr int PIXELS = TILE * TILE, RECORD = 16, GRADIENTS = 9, AHEAD = 8;
constexpr float ALPHA_MAX = 0.999f, TRANSMITTANCE_MIN = 1e-4f, EXPONENT_MAX = 6.0f;

// exp(-s) for 0 <= s <= 6; the coefficients come from the command line of the compiler.
inline float exp_minus(float s) {
    const float x = s * 0.125f;
    float p = (((((E6 * x + E5) * x + E4) * x + E3) * x + E2) * x + E1) * x + E0;
    p *= p;
    p *= p;
    return p * p;
}

inline float clamped(float s) { return std::min(std::max(s, 0.0f), EXPONENT_MAX); }

inline int within(float position, float corner) {
    return static_cast<int>(std::min(std::max(position - corner, 0.0f), static_cast<float>(TILE)));
}

struct Runs {
    int first, last, count;
};

inline Runs runs_of(const float* r, float left, float top) {
    const int x0 = within(r[11], left), x1 = within(r[12], left);
    const int y0 = within(r[13], top), y1 = within(r[14], top);
    if (x1 <= x0 || y1 <= y0) return {0, 0, 0};
    const int a = x0 / COLUMNS, b = (x1 - 1) / COLUMNS;
    const int first = a * BLOCKS + y0 / 2, last = a * BLOCKS + (y1 + 1) / 2;
    if (a < b && last - first >= MERGE) return {first, last + BLOCKS, 1};
    return {first, last, b - a + 1};
}

struct Lists {
    int views, columns, rows, width, height;
    const float* records;      // [R, RECORD]
    const int32_t* ids;        // [M]
    const int64_t* starts;     // [bins + 1]
    const float* backgrounds;  // [C, 3]
};

struct alignas(64) Forward {
    float T[PIXELS], last[PIXELS], x[PIXELS], y[PIXELS], red[PIXELS], green[PIXELS], blue[PIXELS], depth[PIXELS];
};

struct alignas(64) Backward {
    float T[PIXELS], behind[PIXELS], last[PIXELS], x[PIXELS], y[PIXELS];
    float red[PIXELS], green[PIXELS], blue[PIXELS], depth[PIXELS];
};

template <class Buffer>
void prepare(Buffer& b) {
    for (int p = 0; p < PIXELS; p++) {
        const int half = p / HALF_TILE, rest = p % HALF_TILE;
        b.x[p] = half * COLUMNS + rest % COLUMNS + 0.5f;
        b.y[p] = rest / COLUMNS + 0.5f;
    }
}

inline int place(int x, int y) { return x / COLUMNS * HALF_TILE + y * COLUMNS + x % COLUMNS; }

template <bool DEPTH>
void blend(const Lists& lists, int64_t start, int64_t end, float left, float top, Forward& b) {
    for (int64_t k = start; k < end; k++) {
        __builtin_prefetch(lists.records + int64_t(lists.ids[std::min(k + AHEAD, end - 1)]) * RECORD);
        const float* r = lists.records + int64_t(lists.ids[k]) * RECORD;
        const float mx = r[0] - left, my = r[1] - top, ha = r[2], cb = r[3], hc = r[4], o = r[5], limit = r[6];
        const float red = r[7], green = r[8], blue = r[9], z = r[10], number = float(k - start + 1);
        const Runs runs = runs_of(r, left, top);
        for (int run = 0; run < runs.count; run++) {
            const int from = LANES * (run * BLOCKS + runs.first), to = LANES * (run * BLOCKS + runs.last);
#pragma omp simd
            for (int p = from; p < to; p++) {
                const float dx = mx - b.x[p], dy = my - b.y[p];
                const float s = ha * dx * dx + hc * dy * dy + cb * dx * dy;
                const float alpha = std::min(ALPHA_MAX, o * exp_minus(clamped(s)));
                const float T = b.T[p], all = T * alpha;
                const bool hit = (s <= limit) & (s >= 0.0f) & (T > 0.0f);
                const bool enough = T - all > TRANSMITTANCE_MIN;
                const float weight = hit & enough ? all : 0.0f;
                b.T[p] = (T - weight) * (hit & !enough ? -1.0f : 1.0f);
                b.last[p] = std::max(b.last[p], weight > 0.0f ? number : 0.0f);
                b.red[p] += weight * red;
                b.green[p] += weight * green;
                b.blue[p] += weight * blue;
                if (DEPTH) b.depth[p] += weight * z;
            }
        }
        if (((k - start) & 31) == 31) {
            float brightest = 0.0f;
#pragma omp simd reduction(max : brightest)
            for (int p = 0; p < PIXELS; p++) brightest = std::max(brightest, b.T[p]);
            if (brightest <= 0.0f) break;
        }
    }
}

template <bool DEPTH>
void forward_bin(const Lists& lists, int64_t bin, float* images, float* transmittances,
                 int32_t* lasts, float* depths, Forward& b) {
    const int tiles = lists.columns * lists.rows, view = int(bin / tiles), tile = int(bin % tiles);
    const int left = tile % lists.columns * TILE, top = tile / lists.columns * TILE;
    for (int p = 0; p < PIXELS; p++) {
        b.T[p] = 1.0f;
        b.last[p] = b.red[p] = b.green[p] = b.blue[p] = b.depth[p] = 0.0f;
    }
    blend<DEPTH>(lists, lists.starts[bin], lists.starts[bin + 1], float(left), float(top), b);
    const float* background = lists.backgrounds + 3 * view;
    for (int y = 0; y < std::min(TILE, lists.height - top); y++)
        for (int x = 0; x < std::min(TILE, lists.width - left); x++) {
            const int p = place(x, y);
            const int64_t at = (int64_t(view) * lists.height + top + y) * lists.width + left + x;
            const float T = std::fabs(b.T[p]);
            images[3 * at] = b.red[p] + T * background[0];
            images[3 * at + 1] = b.green[p] + T * background[1];
            images[3 * at + 2] = b.blue[p] + T * background[2];
            transmittances[at] = T;
            lasts[at] = int32_t(b.last[p]);
            if (DEPTH) depths[at] = b.depth[p];
        }
}

// Where a record's gradients in one tile go.
inline int64_t slot_of(const float* r, int column, int row) {
    const int width = (int(r[12]) - 1) / TILE - int(r[11]) / TILE + 1;
    return int64_t(reinterpret_cast<const int32_t*>(r)[15]) + row * width + column;
}

template <bool DEPTH>
void unblend(const Lists& lists, int64_t start, int count, int column, int row, float* gradients,
             int stride, Backward& b) {
    const float left = float(column * TILE), top = float(row * TILE);
    for (int k = count - 1; k >= 0; k--) {
        const int32_t next = lists.ids[start + std::max(k - AHEAD, 0)];
        __builtin_prefetch(lists.records + int64_t(lists.ids[start + std::max(k - 2 * AHEAD, 0)]) * RECORD);
        __builtin_prefetch(gradients + slot_of(lists.records + int64_t(next) * RECORD, column, row) * stride);
        const float* r = lists.records + int64_t(lists.ids[start + k]) * RECORD;
        const float mx = r[0] - left, my = r[1] - top, ha = r[2], cb = r[3], hc = r[4], o = r[5], limit = r[6];
        const float ca = ha + ha, cc = hc + hc, red = r[7], green = r[8], blue = r[9], z = r[10], number = float(k + 1);
        float r0 = 0, r1 = 0, r2 = 0, r3 = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, syy = 0, so = 0;
        const Runs runs = runs_of(r, left, top);
        for (int run = 0; run < runs.count; run++) {
            const int from = LANES * (run * BLOCKS + runs.first), to = LANES * (run * BLOCKS + runs.last);
#pragma omp simd reduction(+ : r0, r1, r2, r3, sx, sy, sxx, sxy, syy, so)
            for (int p = from; p < to; p++) {
                const float dx = mx - b.x[p], dy = my - b.y[p];
                const float s = ha * dx * dx + hc * dy * dy + cb * dx * dy;
                const float g = exp_minus(clamped(s)), oe = o * g;
                const bool drawn = (s <= limit) & (s >= 0.0f) & (number <= b.last[p]);
                const float alpha = drawn ? std::min(ALPHA_MAX, oe) : 0.0f;
                const float inverse = 1.0f / (1.0f - alpha), T = b.T[p] * inverse, weight = alpha * T;
                b.T[p] = T;
                const float v0 = b.red[p], v1 = b.green[p], v2 = b.blue[p];
                float along = red * v0 + green * v1 + blue * v2;
                r0 += weight * v0;
                r1 += weight * v1;
                r2 += weight * v2;
                if (DEPTH) {
                    along += z * b.depth[p];
                    r3 += weight * b.depth[p];
                }
                const float behind = b.behind[p];
                b.behind[p] = behind - weight * along;
                const float va = drawn & (oe <= ALPHA_MAX) ? (T * along + inverse * behind) * g : 0.0f;
                so += va;
                const float vx = va * dx, vy = va * dy;
                sx += vx;
                sy += vy;
                sxx += vx * dx;
                sxy += vx * dy;
                syy += vy * dy;
            }
        }
        float* out = gradients + slot_of(r, column, row) * stride;
        out[0] = -o * (ca * sx + cb * sy);
        out[1] = -o * (cb * sx + cc * sy);
        out[2] = -o * 0.5f * sxx;
        out[3] = -o * sxy;
        out[4] = -o * 0.5f * syy;
        out[5] = so;
        out[6] = r0;
        out[7] = r1;
        out[8] = r2;
        if (DEPTH) out[GRADIENTS] = r3;
    }
}

template <bool DEPTH>
void backward_bin(const Lists& lists, int64_t bin, const float* transmittances,
                  const int32_t* lasts, const float* v_images, const float* v_alphas, const float* v_depths,
                  float* gradients, int stride, Backward& b) {
    const int tiles = lists.columns * lists.rows, view = int(bin / tiles), tile = int(bin % tiles);
    const int column = tile % lists.columns, row = tile / lists.columns, left = column * TILE, top = row * TILE;
    const float* background = lists.backgrounds + 3 * view;
    for (int p = 0; p < PIXELS; p++) {
        b.T[p] = 1.0f;
        b.behind[p] = b.last[p] = b.red[p] = b.green[p] = b.blue[p] = b.depth[p] = 0.0f;
    }
    int count = 0;
    for (int y = 0; y < std::min(TILE, lists.height - top); y++)
        for (int x = 0; x < std::min(TILE, lists.width - left); x++) {
            const int p = place(x, y);
            const int64_t at = (int64_t(view) * lists.height + top + y) * lists.width + left + x;
            const float T = transmittances[at];
            const float v0 = v_images[3 * at], v1 = v_images[3 * at + 1], v2 = v_images[3 * at + 2];
            b.T[p] = T;
            b.behind[p] = T * (v_alphas[at] - (background[0] * v0 + background[1] * v1 + background[2] * v2));
            b.last[p] = float(lasts[at]);
            b.red[p] = v0;
            b.green[p] = v1;
            b.blue[p] = v2;
            if (DEPTH) b.depth[p] = v_depths[at];
            count = std::max(count, lasts[at]);
        }
    const int64_t start = lists.starts[bin];
    for (int64_t k = start + count; k < lists.starts[bin + 1]; k++) {
        const float* r = lists.records + int64_t(lists.ids[k]) * RECORD;
        float* out = gradients + slot_of(r, column, row) * stride;
        std::fill(out, out + stride, 0.0f);
    }
    unblend<DEPTH>(lists, start, count, column, row, gradients, stride, b);
}

template <bool DEPTH>
void forward_all(const Lists& lists, float* images, float* transmittances, int32_t* lasts,
                 float* depths, int workers) {
    const int64_t bins = int64_t(lists.views) * lists.columns * lists.rows;
#pragma omp parallel for schedule(static, 1) num_threads(workers)
    for (int w = 0; w < workers; w++) {
        Forward buffer;
        prepare(buffer);
        for (int64_t bin = w; bin < bins; bin += workers)
            forward_bin<DEPTH>(lists, bin, images, transmittances, lasts, depths, buffer);
    }
}

template <bool DEPTH>
void backward_all(const Lists& lists, const float* transmittances, const int32_t* lasts,
                  const float* v_images, const float* v_alphas, const float* v_depths, float* gradients,
                  int workers) {
    const int64_t bins = int64_t(lists.views) * lists.columns * lists.rows;
    const int stride = GRADIENTS + DEPTH;
#pragma omp parallel for schedule(static, 1) num_threads(workers)
    for (int w = 0; w < workers; w++) {
        Backward buffer;
        prepare(buffer);
        for (int64_t bin = w; bin < bins; bin += workers)
            backward_bin<DEPTH>(lists, bin, transmittances, lasts, v_images, v_alphas, v_depths, gradients, stride,
                                buffer);
    }
}

}  // namespace

extern "C" {

// `depths` null: no depth. Sizes are those of Lists.
void blend_forward(const int32_t* sizes, const float* records, const int32_t* ids,
                   const int64_t* starts, const float* backgrounds, float* images, float* transmittances,
                   int32_t* lasts, float* depths, int workers) {
    const Lists lists{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], records, ids, starts, backgrounds};
    (depths ? forward_all<true> : forward_all<false>)(lists, images, transmittances, lasts, depths, workers);
}

// `v_depths` null: no depth.
void blend_backward(const int32_t* sizes, const float* records, const int32_t* ids,
                    const int64_t* starts, const float* backgrounds, const float* transmittances,
                    const int32_t* lasts, const float* v_images, const float* v_alphas, const float* v_depths,
                    float* gradients, int workers) {
    const Lists lists{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], records, ids, starts, backgrounds};
    const auto run = v_depths ? backward_all<true> : backward_all<false>;
    run(lists, transmittances, lasts, v_images, v_alphas, v_depths, gradients, workers);
}
}
