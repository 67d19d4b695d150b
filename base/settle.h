/* A process that has started and will now mostly wait.
 * Depends on: nothing.
 * Threading: any thread.
 * Ownership: none. */
#ifndef BASE_SETTLE_H
#define BASE_SETTLE_H

/* Gives back what start-up took: free pages of the heap, and the mapped pages of the program's code
 * and constants, of which start-up is the larger part; what is needed on comes back from the page
 * cache by itself, at some 2 us for each 64 KiB. Called once. */
void settle(void);

#endif
