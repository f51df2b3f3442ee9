/** A reader's connection, and whether it can take more. Reading pauses without room, so that nothing piles up in memory. */
export interface ReaderRoom {
  /** The turn exists, and has nothing new for the reader yet. Called before each wait. */
  begin(): void;
  readonly hasRoom: boolean;
  /** Resolves once there is room, or the connection has closed. */
  untilRoom(): Promise<void>;
}
