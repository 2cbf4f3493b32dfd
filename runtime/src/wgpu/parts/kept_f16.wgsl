// How keys and values are remembered where a GPU has f16: in half the bytes. Set first, since it begins with a directive.
enable f16;
alias Kept = f16;
