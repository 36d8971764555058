"""What the configs of app.py name."""


class Net:
    def __init__(self, layers, head, **options):
        self.layers, self.head, self.options = layers, head, options

    def described(self):
        return [type(self).__name__, [layer.described() for layer in self.layers], list(self.head), self.options]


class Net2(Net):
    pass


class Layer:
    def __init__(self, width, bias=True):
        self.width, self.bias = width, bias

    def described(self):
        return [type(self).__name__, self.width, self.bias]


class Layer2(Layer):
    pass


def add(number, by):
    return number + by


def add2(number, by):
    return number + 2 * by


def name_of(seed):
    return f"seed {seed}"


def name_of2(seed):
    return f"seed {2 * seed}"
