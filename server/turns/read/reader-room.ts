/** Whether a reader's connection can take more. Reading pauses without room, so that nothing piles up in memory. */
export interface ReaderRoom {
  readonly hasRoom: boolean;
  /** Resolves once there is room, or the connection has closed. */
  untilRoom(): Promise<void>;
}
