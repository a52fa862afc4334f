"""Which objects the config of a preset may ask for."""


def check_config(config, custom_objects=None):
    return dict(custom_objects or {})
