//! Operations that move numbers without changing them.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
};
use crate::Backend;

/// [`Backend::reshape`]: rows cut up, and rows put one after the other.
pub fn reshape<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(41);
    for (rows, from, to) in
        [(1, [1, 12], [3, 4]), (5, [1, 6], [2, 3]), (7, [4, 8], [1, 32]), (20, [3, 4], [2, 6])]
    {
        let x = Array::random(random, rows * from[0], from[1]);
        let expected = x.reshaped(rows * to[0], to[1]);
        check.rows((rows, from, to), rows, &expected, |part| {
            backend.reshape(&part.tensor(&x), [part.len() * to[0], to[1]])
        });
    }
    let x = Array::random(random, 4, 6).upload(backend);
    for shape in [[4, 5], [5, 6], [0, 24], [1, 0], [usize::MAX, 6], [usize::MAX / 2 + 13, 2]] {
        assert_refused(shape, backend.reshape(&x, shape));
    }
}

/// [`Backend::columns`].
pub fn columns<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(42);
    for (rows, columns) in [(1, 1), (3, 40), (33, 96), (500, 96)] {
        let x = Array::random(random, rows, columns);
        for range in [0..columns, 0..1, columns - 1..columns, columns / 3..columns - columns / 4] {
            check.rows((rows, columns, &range), rows, &x.columns_of(range.clone()), |part| {
                backend.columns(&part.tensor(&x), range.clone())
            });
        }
    }
    let x = Array::random(random, 2, 8).upload(backend);
    #[allow(clippy::reversed_empty_ranges, reason = "a range that is no range has to be refused too")]
    for range in [0..9, 8..9, 9..9, 5..3, usize::MAX - 1..usize::MAX] {
        assert_refused(&range, backend.columns(&x, range.clone()));
    }
}

/// [`Backend::join`] of one tensor and of several.
pub fn join<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(43);
    for widths in [&[5][..], &[1, 1], &[64, 16, 16], &[3, 1, 40, 2, 7]] {
        for rows in [1, 3, 33, 700] {
            let parts: Vec<Array> = widths.iter().map(|width| Array::random(random, rows, *width)).collect();
            let expected = Array::join(&parts.iter().collect::<Vec<_>>());
            check.rows((rows, widths), rows, &expected, |rows| {
                let parts: Vec<B::Tensor> = parts.iter().map(|part| rows.tensor(part)).collect();
                backend.join(&parts.iter().collect::<Vec<_>>())
            });
        }
    }
    let [two, three] = [2, 3].map(|rows| Array::random(random, rows, 4).upload(backend));
    assert_refused("rows that differ", backend.join(&[&two, &three]));
    assert_refused("rows that differ", backend.join(&[&two, &two, &three]));
    assert_refused("nothing", backend.join(&[]));
}

/// [`Backend::select_rows`]: repetitions and any order included, and zeros for rows that are not there.
pub fn select_rows<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(5);
    for (rows, columns) in [(9, 33), (1, 1), (200, 64)] {
        let x = Array::random(random, rows, columns);
        let uploaded = x.upload(backend);
        let last = rows as u32 - 1;
        let lists = [
            vec![],
            vec![last],
            vec![last / 2, 0, last / 2, last],
            vec![
                0,
                last + 1,
                last,
                u32::MAX,
                i32::MAX as u32,
                1 << 31,
                (u32::MAX / columns as u32).wrapping_add(1),
            ],
            random.indices(600, rows + rows / 2 + 1),
        ];
        for list in lists {
            check.rows((rows, columns, &list), list.len(), &x.select(&list), |part| {
                backend.select_rows(&uploaded, &part.indices(&list))
            });
        }
    }
    // Of nothing there are no rows.
    let nothing = Array::filled(0, 5, 0.0);
    check.rows("nothing", 2, &nothing.select(&[0, 1]), |part| {
        backend.select_rows(&nothing.upload(backend), &part.indices(&[0, 1]))
    });
}
