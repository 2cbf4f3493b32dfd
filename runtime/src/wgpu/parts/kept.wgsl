// How keys and values are remembered.
alias Kept = f32;
