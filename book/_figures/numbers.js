// Numbers for the live figures: random ones from a seed, and small matrices.
//
// Matrices are flat Float64Arrays, row by row; where nothing else is said, k by k.

/** Random numbers in (0, 1) from a whole number (mulberry32). */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

/** A normal number. */
export function normal(random) {
  return Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
}

/** A chi-squared number with n degrees of freedom: a sum of n squares, without a loop over n. */
export function chiSquared(random, n) {
  if (n < 1) return 0;
  if (n === 1) return normal(random) ** 2;
  const a = n / 2 - 1 / 3; // Marsaglia and Tsang (2000)
  for (;;) {
    const x = normal(random);
    const v = (1 + x / Math.sqrt(9 * a)) ** 3;
    if (v > 0 && Math.log(random()) < x * x / 2 + a * (1 - v + Math.log(v))) return 2 * a * v;
  }
}

/** out = A B, or A^T B, or A B^T; all of them k by k. */
export function multiply(A, B, k, out, transposed = "") {
  const [ai, al] = transposed === "A" ? [1, k] : [k, 1];
  const [bl, bj] = transposed === "B" ? [1, k] : [k, 1];
  for (let i = 0; i < k; i++) {
    for (let j = 0; j < k; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += A[i * ai + l * al] * B[l * bl + j * bj];
      out[i * k + j] = sum;
    }
  }
  return out;
}

/** The upper triangular R with R^T R = A; what rounding makes negative counts as zero. */
export function cholesky(A, k) {
  const R = new Float64Array(k * k);
  for (let i = 0; i < k; i++) {
    for (let j = i; j < k; j++) {
      let sum = A[i * k + j];
      for (let l = 0; l < i; l++) sum -= R[l * k + i] * R[l * k + j];
      if (i === j) R[i * k + i] = Math.sqrt(Math.max(sum, 0));
      else R[i * k + j] = R[i * k + i] > 0 ? sum / R[i * k + i] : 0;
    }
  }
  return R;
}

/** An r by r block of a random orthogonal d by d matrix, exactly (d >= 2r). */
export function overlap(d, r, random) {
  // r columns are G (G^T G + T^T T)^(-1/2) up to a rotation: G are r rows of normal numbers, and
  // T stands for the d - r others, of which only T^T T counts (Bartlett 1933).
  const G = Float64Array.from({ length: r * r }, () => normal(random));
  const T = new Float64Array(r * r);
  for (let i = 0; i < r; i++) {
    T[i * r + i] = Math.sqrt(chiSquared(random, d - r - i));
    for (let j = i + 1; j < r; j++) T[i * r + j] = normal(random);
  }
  const gram = multiply(G, G, r, new Float64Array(r * r), "A");
  const rest = multiply(T, T, r, new Float64Array(r * r), "A");
  const R = cholesky(gram.map((x, i) => x + rest[i]), r);
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < r; j++) { // G R^(-1), row by row
      let sum = G[i * r + j];
      for (let l = 0; l < j; l++) sum -= G[i * r + l] * R[l * r + j];
      G[i * r + j] = sum / R[j * r + j];
    }
  }
  return G;
}

/** Singular values, descending: one-sided Jacobi, exact to the last digits also of small ones. */
export function singularValues(W, k) {
  const A = Float64Array.from(W);
  for (let sweep = 0, turned = true; turned && sweep < 40; sweep++) {
    turned = false;
    for (let p = 0; p < k - 1; p++) {
      for (let q = p + 1; q < k; q++) {
        let pp = 0, qq = 0, pq = 0;
        for (let i = 0; i < k; i++) {
          const x = A[i * k + p], y = A[i * k + q];
          pp += x * x; qq += y * y; pq += x * y;
        }
        if (Math.abs(pq) <= 1e-15 * Math.sqrt(pp * qq) || pq === 0) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * pq);
        const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t), s = c * t;
        for (let i = 0; i < k; i++) {
          const x = A[i * k + p], y = A[i * k + q];
          A[i * k + p] = c * x - s * y;
          A[i * k + q] = s * x + c * y;
        }
      }
    }
  }
  const values = new Float64Array(k);
  for (let j = 0; j < k; j++) {
    for (let i = 0; i < k; i++) values[j] += A[i * k + j] ** 2;
  }
  return values.map(Math.sqrt).sort().reverse();
}

/** Layers of k by k in training: gradient descent on |W_L...W_1 - target|^2 / 2, all at once. */
export class Layers {
  constructor(Ws, target, k, eta, lam = 0) {
    const empty = () => new Float64Array(k * k);
    Object.assign(this, { Ws, target, k, eta, lam, L: Ws.length, t: 0 });
    this.prefix = Ws.map(empty); // W_l ... W_1
    this.sweep = [empty(), empty()]; // W_L^T ... W_{l+1}^T (W_L ... W_1 - target), and the next
    this.gradient = empty();
    this.look();
  }

  get loss() {
    return this.square / 2;
  }

  /** Work out the products, the error and its square for the present weights. */
  look() {
    const { Ws, L, k, prefix, target } = this;
    prefix[0].set(Ws[0]);
    for (let l = 1; l < L; l++) multiply(Ws[l], prefix[l - 1], k, prefix[l]);
    const error = this.sweep[0];
    this.square = 0;
    for (let i = 0; i < k * k; i++) {
      error[i] = prefix[L - 1][i] - target[i];
      this.square += error[i] ** 2;
    }
  }

  /** Take one step. */
  advance() {
    const { Ws, L, k, eta, lam, prefix, gradient } = this;
    let [S, next] = this.sweep;
    for (let l = L - 1; l >= 0; l--) {
      if (l > 0) multiply(S, prefix[l - 1], k, gradient, "B");
      else gradient.set(S);
      if (l > 0) multiply(Ws[l], S, k, next, "A"); // with the weights of before the step
      for (let i = 0; i < k * k; i++) Ws[l][i] = (1 - eta * lam) * Ws[l][i] - eta * gradient[i];
      [S, next] = [next, S];
    }
    this.t += 1;
    this.look();
  }

  /** The singular values of each layer, descending. */
  spectra() {
    return this.Ws.map((W) => singularValues(W, this.k));
  }
}
