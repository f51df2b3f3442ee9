/** Whose engine the benchmarks use. */
export const USER = "ada";
