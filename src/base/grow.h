/*
 * grow.h
 *
 * Arrays that grow as elements are added.
 */
#ifndef DJA_GROW_H
#define DJA_GROW_H

/*
 * Makes sure that an array of n elements has room for one more.  Returns the array,
 * which is NULL at first and made in the context, and keeps in *max how many elements
 * it has room for.
 */
static inline void *
dja_grow(MemoryContext context, void *array, Size element, int n, int *max)
{
	int			size = Max(64, 2 * *max);

	if (n < *max)
		return array;
	array = array == NULL ? MemoryContextAllocHuge(context, element * size) :
		repalloc_huge(array, element * size);
	*max = size;
	return array;
}

#endif							/* DJA_GROW_H */
