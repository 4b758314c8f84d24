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

/** The n by m product A B with q terms in each sum; or A^T B, or A B^T. */
export function times(n, q, m, A, B, out = new Float64Array(n * m), transposed = "") {
  const [ai, al] = transposed === "A" ? [1, n] : [q, 1], [bl, bj] = transposed === "B" ? [1, q] : [m, 1];
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      for (let l = 0; l < q; l++) sum += A[i * ai + l * al] * B[l * bl + j * bj];
      out[i * m + j] = sum;
    }
  }
  return out;
}

/** out = A B, or A^T B, or A B^T; all of them k by k. */
export const multiply = (A, B, k, out, transposed) => times(k, k, k, A, B, out, transposed);

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

/** Turn the n rows of A, in pairs, until they are orthogonal to each other: one-sided Jacobi. */
export function turnRows(A, n, length) {
  const small = 1e-15 * Math.sqrt(length); // what rounding leaves of a product of rows
  for (let sweep = 0, turned = true; turned && sweep < 40; sweep++) {
    turned = false;
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        const a = p * length, b = q * length;
        let pp = 0, qq = 0, pq = 0;
        for (let i = 0; i < length; i++) {
          const x = A[a + i], y = A[b + i];
          pp += x * x; qq += y * y; pq += x * y;
        }
        if (Math.abs(pq) <= small * Math.sqrt(pp * qq) || pq === 0) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * pq);
        const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t), s = c * t;
        for (let i = 0; i < length; i++) {
          const x = A[a + i], y = A[b + i];
          A[a + i] = c * x - s * y;
          A[b + i] = s * x + c * y;
        }
      }
    }
  }
  return A;
}

/** The squared length of each of n rows. */
export function squares(A, n, length) {
  const found = new Float64Array(n);
  for (let i = 0; i < n * length; i++) found[Math.floor(i / length)] += A[i] ** 2;
  return found;
}

/** Singular values, descending, exact to the last digits also of small ones. */
export function singularValues(W, k) {
  return squares(turnRows(Float64Array.from(W), k, k), k, k).map(Math.sqrt).sort().reverse();
}

/** Make the k columns of A orthonormal; a column that depends on others becomes a random one. */
export function orthonormalise(A, d, k, random) {
  for (let j = 0; j < k; j++) {
    for (let round = 0; round < 2; ) { // twice is enough: what is left of the others is rounding
      const before = lengthOf(j);
      for (let l = 0; l < j; l++) {
        let sum = 0;
        for (let i = 0; i < d; i++) sum += A[i * k + l] * A[i * k + j];
        for (let i = 0; i < d; i++) A[i * k + j] -= sum * A[i * k + l];
      }
      const after = lengthOf(j);
      if (after > 1e-10 * before) {
        for (let i = 0; i < d; i++) A[i * k + j] /= after;
        round += 1;
      } else {
        for (let i = 0; i < d; i++) A[i * k + j] = normal(random);
        round = 0;
      }
    }
  }
  return A;
  function lengthOf(j) {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += A[i * k + j] ** 2;
    return Math.sqrt(sum);
  }
}

/** k orthonormal columns of length d, each choice as likely as any other. */
export function orthonormal(d, k, random) {
  return orthonormalise(Float64Array.from({ length: d * k }, () => normal(random)), d, k, random);
}

/** Layers of k by k in training on |W_L...W_1 - target|^2 / 2, all at once; by descent, unless `move` is another. */
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
    const { Ws, L, k, prefix, gradient } = this;
    let [S, next] = this.sweep;
    for (let l = L - 1; l >= 0; l--) {
      if (l > 0) multiply(S, prefix[l - 1], k, gradient, "B");
      else gradient.set(S);
      if (l > 0) multiply(Ws[l], S, k, next, "A"); // with the weights of before the step
      this.move(l, gradient);
      [S, next] = [next, S];
    }
    this.t += 1;
    this.look();
  }

  /** Move a layer; it may use up its gradient. */
  move(l, G) {
    const { eta, lam } = this, W = this.Ws[l];
    for (let i = 0; i < W.length; i++) W[i] = (1 - eta * lam) * W[i] - eta * G[i];
  }

  /** The singular values of each layer, descending. */
  spectra() {
    return this.Ws.map((W) => singularValues(W, this.k));
  }
}
