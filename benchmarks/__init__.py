import services as services  # Torch waits as it does there.
