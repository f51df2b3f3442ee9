/** The user whose engine the benchmarks use. */
export const USER = "ada";
