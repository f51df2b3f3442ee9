/** Whether this process drains. A draining process takes no new work, but still answers reads. */
export class DrainState {
  #draining = false;

  get draining(): boolean {
    return this.#draining;
  }

  /** A drain cannot be undone. */
  begin(): void {
    this.#draining = true;
  }
}
