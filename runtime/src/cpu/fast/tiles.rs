//! Integer codes in the order in which products read them.

/// Outputs of a tile: the lanes of 32 bits of the widest vectors.
pub(super) const OUTPUTS: usize = 16;

/// Inputs of a tile: the bytes of a lane.
pub(super) const INPUTS: usize = 4;

/// What a tile holds is a code plus this: the instruction that multiplies bytes wants one side unsigned.
pub(super) const OFFSET: i32 = 128;

/// Codes of 16 outputs for 4 inputs: a cache line. Outputs are lanes, so no product ends with a sum across lanes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Tile(pub(super) [[u8; INPUTS]; OUTPUTS]);

/// Codes `[rows, cols]` as tiles `[rows / 16, cols / 4]`, filled up with codes of 0.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    across: usize,
    tiles: Vec<Tile>,
}

impl Tiles {
    /// The tiles of row-major codes.
    pub(super) fn new(rows: usize, cols: usize, codes: &[i8]) -> Self {
        assert_eq!(codes.len(), rows * cols, "codes of {rows} by {cols}");
        let across = cols.div_ceil(INPUTS);
        let mut tiles = vec![Tile([[OFFSET as u8; INPUTS]; OUTPUTS]); rows.div_ceil(OUTPUTS) * across];
        for (i, row) in codes.chunks_exact(cols.max(1)).enumerate() {
            let tiles = &mut tiles[i / OUTPUTS * across..][..across];
            for (tile, codes) in tiles.iter_mut().zip(row.chunks(INPUTS)) {
                let lane = &mut tile.0[i % OUTPUTS];
                lane.iter_mut().zip(codes).for_each(|(to, &code)| *to = (i32::from(code) + OFFSET) as u8);
            }
        }
        Self { across, tiles }
    }

    /// Tiles of the outputs `16 group ..`, in the order of inputs.
    pub(super) fn group(&self, group: usize) -> &[Tile] {
        &self.tiles[group * self.across..][..self.across]
    }

    /// Codes of row `i`, four at a time; those after the last input are 0.
    pub(super) fn row(&self, i: usize) -> impl Iterator<Item = [f32; INPUTS]> {
        let lane = i % OUTPUTS;
        self.group(i / OUTPUTS).iter().map(move |tile| tile.0[lane].map(|code| f32::from(code) - OFFSET as f32))
    }
}
