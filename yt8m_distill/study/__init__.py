"""Many runs beside each other: their table, spread and plots."""
