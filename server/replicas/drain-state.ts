/** Whether this process is on its way out: it takes no new work then, while reads go on. */
export class DrainState {
  #draining = false;

  get draining(): boolean {
    return this.#draining;
  }

  /** There is no way back. */
  begin(): void {
    this.#draining = true;
  }
}
