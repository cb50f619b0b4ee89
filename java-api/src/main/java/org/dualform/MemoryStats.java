package org.dualform;

/**
 * What a device's memory pool holds at one moment.
 *
 * <p>Threading: immutable. The numbers are read one after another: exact when no other thread uses the device.
 *
 * @param liveTensors tensors, views included, that are not closed
 * @param bytesInUse bytes handed out to tensors and running ops
 * @param bytesReserved bytes taken from the system, in use or kept for reuse
 * @param peakBytes largest {@code bytesInUse} since the device was opened or {@link Device#resetPeak()}
 * @param systemAllocations allocations made from the system since the device was opened: constant in a steady loop
 */
public record MemoryStats(long liveTensors, long bytesInUse, long bytesReserved, long peakBytes, long systemAllocations) {}
