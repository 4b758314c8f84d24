// How a method turns gradients into steps, for the law's live figure.
//
// In the bases of the law a layer is a k by k block and rho times the identity of m further
// directions, and so is its gradient. What a method that keeps the law does to a layer, it does to
// the block and to one number. Each function here is made for one layer; it returns a function that
// turns the gradient G of the block into its step, in place, and the number g, that of rho, into what
// it returns. Decay comes with W and rho, since a method may put it in before or after.

import { multiply } from "./numbers.js";

function descent() {
  return (G, g, W, rho, lam) => {
    for (let i = 0; i < G.length; i++) G[i] += lam * W[i];
    return g + lam * rho;
  };
}

/** Heavy-ball momentum. */
function momentum(k, m, beta = 0.9) {
  const velocity = new Float64Array(k * k);
  let rest = 0;
  return (G, g, W, rho, lam) => {
    for (let i = 0; i < G.length; i++) G[i] = velocity[i] = beta * velocity[i] + G[i] + lam * W[i];
    rest = beta * rest + g + lam * rho;
    return rest;
  };
}

/**
 * Five Newton-Schulz steps towards the polar factor of the layer that is the block X and x times the
 * identity of m: all of it sees the others through its Frobenius norm alone.
 */
function orthogonalise(X, x, k, m) {
  const size = Math.sqrt(X.reduce((sum, each) => sum + each * each, m * x * x));
  if (size === 0) return 0;
  const [A, B, C] = [0, 1, 2].map(() => new Float64Array(k * k));
  for (let i = 0; i < X.length; i++) X[i] /= size;
  let y = x / size;
  for (let n = 0; n < 5; n++) {
    multiply(X, X, k, A, "B");
    multiply(A, A, k, B);
    for (let i = 0; i < B.length; i++) B[i] = 2.0315 * B[i] - 4.775 * A[i];
    multiply(B, X, k, C);
    for (let i = 0; i < X.length; i++) X[i] = 3.4445 * X[i] + C[i];
    y *= 3.4445 - 4.775 * y ** 2 + 2.0315 * y ** 4;
  }
  return y;
}

/** Muon, as torch.optim.Muon, but in double precision. */
function muon(k, m, beta = 0.95) {
  const mean = new Float64Array(k * k), mixed = (fresh, old) => fresh + beta * (old - fresh);
  let rest = 0;
  return (G, g, W, rho, lam) => {
    for (let i = 0; i < G.length; i++) {
      mean[i] = mixed(G[i], mean[i]);
      G[i] = mixed(G[i], mean[i]); // as Nesterov looks ahead
    }
    rest = mixed(g, rest);
    const step = orthogonalise(G, mixed(g, rest), k, m);
    for (let i = 0; i < G.length; i++) G[i] += lam * W[i];
    return step + lam * rho;
  };
}

/** Adam, which keeps no block: here all of the layer is one, and no rho is left. */
function adam(k) {
  const mean = new Float64Array(k * k), square = new Float64Array(k * k);
  let t = 0;
  return (G, g, W, rho, lam) => {
    t += 1;
    const first = 1 - 0.9 ** t, second = 1 - 0.999 ** t;
    for (let i = 0; i < G.length; i++) {
      const x = G[i] + lam * W[i];
      mean[i] = 0.9 * mean[i] + 0.1 * x;
      square[i] = 0.999 * square[i] + 0.001 * x * x;
      G[i] = mean[i] / first / (Math.sqrt(square[i] / second) + 1e-8);
    }
    return 0;
  };
}

/** What the figure offers, in the order of its control; `said` follows the number of steps. */
export const METHODS = [
  { make: descent, said: "" },
  { make: momentum, said: " of momentum, β = 0.9" },
  { make: muon, said: " of Muon, exact in the core" },
  { make: adam, said: " of Adam, which has no core", whole: true },
];
